"""What a box may use: processes, memory, disk, handles, the scheduler, the kernel's own tables. Cases 01 to 20."""

from __future__ import annotations

from tests.security.payloads.attack import EITHER, SYSCALL, attack

__all__ = ["RESOURCES"]

RESOURCES = (
    attack("01_fork_bomb", "import os\nwhile True: os.fork()", outcome=EITHER),
    attack(
        "02_thread_bomb",
        "import threading, time\nmade = []\ntry:\n while True:\n  t = threading.Thread(target=time.sleep, args=(9,), "
        "daemon=True)\n  t.start()\n  made.append(t)\nexcept RuntimeError as error: print('stopped', len(made) < 64)",
        jail="stopped True",
        outcome=EITHER,
        jail_outcome=("observed",),
    ),
    attack("03_memory_bomb_bytes", "x = []\nwhile True: x.append(b'x' * (1 << 20))", outcome=("lost",)),
    attack(
        "04_memory_bomb_many_children",
        "import os, time\nfor _ in range(12):\n if os.fork() == 0:\n  x = bytearray(60 << 20)\n  time.sleep(5)\n"
        "  os._exit(0)\ntime.sleep(1)",
        outcome=EITHER,
    ),
    attack(
        "05_mmap_overcommit_touch",
        "import mmap\nm = mmap.mmap(-1, 1 << 30)\nfor i in range(0, 1 << 30, 4096): m[i] = 1",
        outcome=EITHER,
    ),
    attack(
        "06_tmpfs_fill_one_file",
        "try:\n with open('big', 'wb') as f:\n  while True: f.write(b'x' * (1 << 20))\n"
        "except OSError as error: print('errno', error.errno)",
        "errno ",
    ),
    attack(
        "07_tmpfs_fill_inodes",
        "n = 0\ntry:\n while True:\n  open(f'f{n}', 'w').close()\n  n += 1\n"
        "except OSError as error: print('errno', error.errno, n < 600)",
        jail="errno 28 True",
    ),
    attack(
        "08_deep_directory",
        "import os\ntry:\n while True:\n  os.mkdir('d')\n  os.chdir('d')\nexcept OSError as error: print(error.errno)",
        # Its tmpfs counts no folders: how far this gets before its time is up depends on the machine.
        gvisor_outcome=EITHER,
        jail="28",
    ),
    attack(
        "09_huge_sparse_file",
        "import os\ntry: os.truncate(os.open('s', os.O_CREAT | os.O_WRONLY), 1 << 60)\n"
        "except OSError as error: print('errno', error.errno)",
        jail="errno 27",
    ),
    attack(
        "10_fd_exhaustion",
        "made = []\ntry:\n while True: made.append(open('/dev/null'))\n"
        "except OSError as error: print('errno', error.errno)",
        "errno 24",
    ),
    attack(
        "11_fd_passing_hoard",
        "import socket, array, os\na, b = socket.socketpair()\na.setblocking(False)\nfds = [(socket.SOL_SOCKET, "
        "socket.SCM_RIGHTS, array.array('i', [0] * 200))]\ntry:\n while True: a.sendmsg([b'x'], fds)\n"
        "except OSError as error: print('errno', error.errno)",
        outcome=EITHER,
        jail_outcome=("observed",),
        jail="errno ",
    ),
    attack(
        "12_pipe_buffer_hoard",
        "import os\nmade = []\ntry:\n while True:\n  r, w = os.pipe()\n  os.set_blocking(w, False)\n  made.append(w)\n"
        "  os.write(w, b'x' * 65536)\nexcept OSError as error: print('errno', error.errno)",
        "errno ",
        outcome=EITHER,
    ),
    attack(
        "13_shared_memory_and_queue_fill",
        SYSCALL + "made = 0\nwhile made < 10000 and call(29, 0, 1 << 20, 0o1600) >= 0: made += 1\n"
        "print('segments', made <= 10000)",
        "segments True",
        outcome=EITHER,
    ),
    attack(
        "13b_memory_file_fill",
        "import os\nfd = os.memfd_create('x')\ntry:\n while True: os.write(fd, b'x' * (1 << 20))\n"
        "except OSError as error: print('errno', error.errno)",
        outcome=EITHER,
    ),
    attack(
        "14_cpu_spin_threads",
        "import os, time\nfor _ in range(8):\n if os.fork() == 0:\n  while True: pass\ntime.sleep(0.5)\nprint('spun')",
        "spun",
        outcome=EITHER,
    ),
    attack(
        "15_realtime_priority",
        "import os\nfor act in (lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)), "
        "lambda: os.nice(-10)):\n try:\n  act()\n  print('MADE')\n except PermissionError: print('refused')",
        jail="refused\nrefused",
    ),
    attack(
        "15b_io_priority",
        SYSCALL + "print('refused' if call(251, 1, 0, (1 << 13) | 0) < 0 else 'GOT IT')",
        "refused",
    ),
    attack(
        "16_kernel_memory_by_names",
        "import os\nfor n in range(400): os.mkdir(f'd{n}')\nfor _ in range(50): os.listdir('.')\n"
        "for n in range(100_000):\n try: os.stat(f'/tmp/{n:0200}')\n except OSError: pass\nprint('done')",
        "done",
        outcome=EITHER,
        timeout_s=20.0,
    ),
    attack(
        "17_inotify_epoll_timerfd_hoard",
        SYSCALL + "n = 0\nwhile n < 100000 and call(290, 0, 0) >= 0 and call(291, 0) >= 0: n += 1\n"
        "print('made', n < 600)",
        "made True",
    ),
    attack("18_keyring_fill", SYSCALL + "print(call(248, 0, 0, 0, 0, 0), call(250, 0, 0))", jail="-1 -1"),
    attack(
        "19_zombie_farm",
        "import os, time\nfor _ in range(200):\n pid = os.fork()\n if pid == 0:\n  if os.fork() == 0: os._exit(0)\n"
        "  os._exit(0)\n os.waitpid(pid, 0)\ntime.sleep(0.3)\n"
        "print('left', len([p for p in os.listdir('/proc') if p.isdigit()]))",
        jail="left 1",
        timeout_s=20.0,
        outcome=EITHER,
        jail_outcome=("observed",),
    ),
    attack(
        "20_core_dump_bomb",
        "import os, signal\nif os.fork() == 0: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "print(os.wait()[1], os.listdir('.'))",
        "11 []",
    ),
)
