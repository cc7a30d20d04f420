"""Ways out of the box: files, processes, namespaces, privileges, the kernel. Cases 31 to 52."""

from __future__ import annotations

from tests.security.payloads.attack import EITHER, SYSCALL, attack

__all__ = ["REACH"]

REACH = (
    attack(
        "31_read_host_files",
        "import os\nfor path in ('/etc/shadow', '/root/.bashrc', '/var/run/docker.sock', '/sys/fs/cgroup', '/home', "
        "'/proc/kcore', '/proc/keys', '/proc/sysrq-trigger', '/proc/sys', '/proc/1/environ', '/.host', '/boot'):\n"
        " try: os.stat(path)\n except OSError: continue\n print('SEEN', path)\nprint('done')",
        "done",
    ),
    attack(
        "32_read_server_env",
        "import os, glob\nfound = dict(os.environ)\nfor path in glob.glob('/proc/*/environ'):\n"
        " try: found[path] = open(path, 'rb').read()\n except OSError: pass\nprint('SECRET' in repr(found), 'planted')",
        "False planted",
    ),
    attack(
        "33_proc_root_escape",
        "import os\nfor name in ('root', 'cwd', 'fd', 'exe', 'mem', 'maps'):\n path = '/proc/1/' + name\n"
        " try: os.listdir(path) if os.path.isdir(path) else open(path).read(1)\n except OSError: continue\n"
        " print('SEEN', path)\nprint(sorted(os.listdir('/proc/self/root'))[-3:])",
        jail="['tmp', 'usr', 'workspace']",
    ),
    attack(
        "34_proc_self_exe_overwrite",
        "import sys, os\nfor path in ('/proc/self/exe', sys.executable, os.__file__, '/etc/passwd', '/x'):\n"
        " try: open(path, 'r+b' if os.path.exists(path) else 'wb')\n except OSError: continue\n print('OPENED', path)\n"
        "print('done')",
        "done",
    ),
    attack(
        "35_inherited_fd_scan",
        "import os\nkinds = []\nfor fd in range(1024):\n try: kinds.append((fd, os.readlink(f'/proc/self/fd/{fd}')"
        ".split(':')[0]))\n except OSError: pass\nprint(kinds)",
        "[(0, '/dev/null'), (1, 'pipe'), (2, 'pipe'), (3, 'socket')]",
    ),
    attack(
        "40_mount_unshare_setns",
        SYSCALL + "print([call(*a) for a in ((272, 0x10000000), (272, 0x20000), (308, 0, 0), (165, 0, 0, 0, 0, 0), "
        "(166, 0, 0), (155, 0, 0), (161, 0), (428, -100, 0, 0), (430, 0, 0), (442, 0, 0, 0, 0, 0))])",
        jail="[-1, -1, -1, -1, -1, -1, -1, -1, -1, -1]",
    ),
    attack(
        "41_ptrace_parent_and_sibling",
        SYSCALL + "print([call(*a) for a in ((101, 16, 1, 0, 0), (310, 1, 0, 0, 0, 0, 0), (311, 1, 0, 0, 0, 0, 0), "
        "(438, 0, 0, 0), (312, 1, 2, 0, 0, 0), (302, 1, 7, 0, 0))])",
        jail="[-1, -1, -1, -1, -1, -1]",
    ),
    attack(
        "42_kill_minus_nine",
        "import os, signal\nfor pid in {1, -1, *range(3, 400)} - {os.getpid()}:\n try: os.kill(pid, 9)\n"
        " except OSError: pass\n"
        "print('still here')",
        "still here",
        outcome=EITHER,
        jail_outcome=("observed",),
    ),
    attack("43_signal_the_group", "import os\nos.killpg(0, 9)", outcome=("lost",)),
    attack(
        "44_tiocsti",
        "import fcntl\nfor request in (0x5412, 0x541C, 0x1_0000_5412 - (1 << 32)):\n"
        " try:\n  fcntl.ioctl(0, request, b'x')\n  print('GOT IT')\n except OSError as error: print(error.errno)",
        jail="1\n1\n1",
    ),
    attack(
        "44b_tiocsti_with_high_bits",
        SYSCALL + "print(call(16, 0, 0x7FFF_0000_5412, 0), call(16, 0, 0x1_0000_541C, 0))",
        jail="-1 -1",
    ),
    attack(
        "45_userns_in_userns",
        SYSCALL + "print(call(56, 0x10000011, 0, 0, 0, 0), call(56, 0x8011, 0, 0, 0, 0), call(435, 0, 0))",
        jail="-1 -1 -38",
    ),
    attack(
        "46_setuid_and_capabilities",
        "import os\nfor act in (lambda: os.setuid(0), lambda: os.setgroups([0]), lambda: os.chown('/tmp', 0, 0), "
        "lambda: os.mknod('dev', 0o60666, os.makedev(254, 0))):\n try:\n  act()\n  print('MADE')\n"
        " except PermissionError: print('refused')\n"
        "print([l.split()[1] for l in open('/proc/self/status') if l.startswith(('Cap', 'NoNewPrivs', 'Seccomp:'))])",
        "refused\nrefused\nrefused\n",
        jail=f"refused\nrefused\nrefused\nrefused\n{['0' * 16] * 5 + ['1', '2']}",
    ),
    attack(
        "47_seccomp_arch_switch",
        "import ctypes, mmap\ncode = mmap.mmap(-1, 4096, prot=7)\ncode.write(bytes.fromhex('b814000000cd80c3'))\n"
        "address = ctypes.addressof(ctypes.c_char.from_buffer(code))\n"
        "print('ran', ctypes.CFUNCTYPE(ctypes.c_int)(address)())",
        outcome=EITHER,
        jail_outcome=("lost",),
    ),
    attack(
        "47b_x32",
        SYSCALL + "print(call(0x40000000 + 39), call(0x40000000 + 520, 0, 0, 0))",
        # A container's profile ends a process that calls through another table; the jail's filter refuses the call.
        outcome=EITHER,
        jail_outcome=("observed",),
        jail="-1 -1",
    ),
    attack(
        "48_io_uring_bpf_perf_userfaultfd",
        SYSCALL + "print([call(*a) for a in ((425, 1, 0), (321, 0, 0, 0), (298, 0, 0, 0, 0, 0), (323, 0), "
        "(303, 0, 0, 0, 0, 0), (304, 0, 0, 0), (175, 0, 0, 0), (246, 0, 0, 0, 0), (317, 1, 0, 0))])",
        jail="[-38, -1, -1, -1, -1, -1, -1, -1, -1]",
    ),
    attack(
        "49_abstract_socket_vsock_netlink",
        "import socket\nfor family, kind in ((40, 1), (16, 3), (17, 3), (38, 5)):\n"
        " try:\n  socket.socket(family, kind)\n  print('MADE', family)\n except OSError: print('refused')\n"
        "s = socket.socket(socket.AF_UNIX)\ntry: s.connect('\\0agenthub-test-{port}')\n"
        "except OSError as error: print('errno', error.errno)",
        jail="refused\nrefused\nrefused\nrefused\nerrno 111",
    ),
    attack(
        "50_cgroup_and_sysctl_write",
        "import os\nfor path in ('/sys/fs/cgroup/memory/release_agent', '/proc/sys/kernel/core_pattern', "
        "'/proc/sysrq-trigger', '/proc/self/oom_score_adj', '/proc/self/uid_map'):\n"
        " try:\n  with open(path, 'w') as f: f.write('-1000')\n except OSError: continue\n print('WROTE', path)\n"
        "print('done')",
        "done",
    ),
)
