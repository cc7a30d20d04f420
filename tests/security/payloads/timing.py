"""Code that does not end, or not when it is told to. Cases 21 to 30."""

from __future__ import annotations

from tests.security.payloads.attack import EITHER, attack

__all__ = ["TIMING"]

TIMING = (
    attack("21_infinite_loop_py", "while True: pass", "interrupted", timeout_s=0.3),
    attack("22_infinite_loop_c", "sum(range(10**15))", outcome=EITHER, timeout_s=0.3),
    attack("22b_catastrophic_regex", "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')", outcome=EITHER, timeout_s=0.3),
    attack(
        "23_ignore_sigint",
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
        outcome=("lost",),
        timeout_s=0.3,
    ),
    attack("24_sleep_forever", "import time\ntime.sleep(10**6)", "interrupted", timeout_s=0.3),
    attack("25_stdin_read_block", "import sys\nprint(repr(sys.stdin.read()))\ninput()", "''\nTraceback"),
    attack(
        "26_catch_keyboard_interrupt",
        "def again():\n try:\n  while True: pass\n except BaseException: again()\nagain()",
        outcome=EITHER,
        timeout_s=0.3,
    ),
    attack(
        "27_atexit_hang",
        "import atexit, time, sys\natexit.register(time.sleep, 1000)\nsys.exit(0)",
        outcome=("lost",),
    ),
    attack(
        "28_fifo_open",
        "import os\nos.mkfifo('fifo')\nopen('fifo').read()",
        "interrupted",
        timeout_s=0.3,
    ),
    attack(
        "28b_child_that_stops",
        "import os, signal\npid = os.fork()\nif pid == 0:\n while True: os.kill(os.getpid(), signal.SIGSTOP)\n"
        "os.waitpid(pid, 0)",
        "interrupted",
        timeout_s=0.3,
    ),
    attack(
        "29_sigstop_self", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", outcome=("lost",), timeout_s=0.3
    ),
    attack(
        "30_fake_clock",
        "import time\ntime.time = time.monotonic = lambda: 0.0\nwhile True: pass",
        "interrupted",
        timeout_s=0.3,
    ),
)
