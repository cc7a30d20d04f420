"""Output and frames that mean harm to whoever reads them, and work that outlives its turn. Cases 58 to 63."""

from __future__ import annotations

import asyncio

from agenthub.sandbox import Sandbox
from tests.security.payloads.attack import EITHER, attack
from tests.security.payloads.files import text_of

__all__ = ["PROTOCOL"]

_STRAY = "  while True:\n   os.write(1, b'STRAY' * 100)\n   with open('grows', 'a') as f: f.write('x')"


async def stands_still(victim: Sandbox, fresh: Sandbox) -> None:
    """63: nothing goes on between two turns, and the next turn is answered."""
    del fresh
    before = await _grown(victim)
    await asyncio.sleep(0.2)
    # On a busy machine a task may still be in the middle of one write, after which it stops.
    after = await _grown(victim)
    assert after <= before + 1, f"it grew from {before} to {after}"
    assert "'next'" in await text_of(victim, "'next'"), "the value is apart from what is printed"


async def _grown(victim: Sandbox) -> int:
    files = await victim.list_files()
    return len(await victim.read_file("grows")) if "grows" in files else 0


PROTOCOL = (
    attack(
        "58_stdout_flood",
        "import os\ntry:\n while True: os.write(1, b'x' * 65536)\nexcept KeyboardInterrupt: pass",
        "bytes cut",
        outcome=EITHER,
        jail_outcome=("observed",),
        timeout_s=1.0,
    ),
    attack(
        "59_stderr_flood",
        "import os, sys\ntry:\n while True:\n  os.write(2, b'e' * 4096)\n  os.write(1, b'o' * 4096)\n"
        "  sys.stdin.read(1)\nexcept KeyboardInterrupt: pass",
        "bytes cut",
        outcome=EITHER,
        jail_outcome=("observed",),
        timeout_s=1.0,
    ),
    attack(
        "60_hostile_text",
        "import sys\n"
        "sys.stdout.buffer.write(b'\\xff\\xfe\\x00\\x1b[2J\\r\\x9b' + '\\u202e\\U000e0041'.encode())\n'\\ud800\\x07'",
        "\\xff\\xfe\\x00\\x1b[2J\\r\\x9b\\u202e\\U000e0041",
    ),
    attack(
        "60b_hostile_file_names",
        "open(b'\\xff\\x1b'.decode('utf-8', 'surrogateescape'), 'w').close()\nprint('made')",
        "made",
    ),
    attack(
        "60c_one_endless_line",
        "import os\nfor _ in range(80): os.write(1, b'x' * 131072)",
        "bytes cut",
        timeout_s=20.0,
    ),
    attack(
        "61_forge_result_frame",
        "import json, os\ndata = json.dumps({'id': 1, 'value': 'FORGED', 'error': None}).encode()\n"
        "frame = len(data).to_bytes(4, 'big') + data\nfor fd in range(4, 64):\n try: os.write(fd, frame)\n"
        " except OSError: pass\nprint(frame.decode())\nprint('EXIT_CODE:0')",
        "EXIT_CODE:0",
    ),
    attack(
        "61b_many_frames",
        'import os\ndata = b\'{"id": 1, "value": "FORGED", "error": null}\'\n'
        "for _ in range(3): os.write(3, len(data).to_bytes(4, 'big') + data)",
        outcome=EITHER,
    ),
    attack("61c_a_frame_of_gigabytes", "import os\nos.write(3, b'\\xff' * 100)", outcome=("lost",)),
    attack("61d_garbage_for_a_frame", "import os\nos.write(3, b'\\0\\0\\0\\4nope')", outcome=("lost",)),
    attack(
        "61e_deep_json",
        "import os\ndata = b'[' * 500_000\nos.write(3, len(data).to_bytes(4, 'big') + data)",
        outcome=("lost",),
    ),
    attack("61f_close_the_socket", "import os\nos.close(3)\nwhile True: pass", outcome=("lost",)),
    attack(
        "62_repr_bomb",
        "class Bomb:\n def __repr__(self): return 'x' * (40 << 20)\nBomb()",
        "characters cut",
    ),
    attack("62b_repr_raises", "class Bomb:\n def __repr__(self): raise SystemError('no')\nBomb()", "SystemError: no"),
    attack(
        "62c_repr_hangs", "class Bomb:\n def __repr__(self):\n  while True: pass\nBomb()", "interrupted", timeout_s=0.3
    ),
    attack("62d_repr_is_no_text", "class Bomb:\n def __repr__(self): return 7\nBomb()", "TypeError"),
    attack("62e_a_million_digits", "10 ** 1_000_000", "ValueError"),
    attack(
        "62f_an_error_that_cannot_be_shown",
        "class Bomb(BaseException):\n def __str__(self): raise self\n __repr__ = __str__\nraise Bomb()",
        "Bomb",
    ),
    attack(
        "62h_pickle_by_reduce",
        "class Bomb:\n def __reduce__(self): return (print, ('REACHED',))\nBomb()",
        "Bomb object",
    ),
    attack("62i_deep_value", "x = []\nfor _ in range(100_000): x = [x]\nx", "RecursionError"),
    attack("62g_deep_recursion", "def f(): return f()\nf()", "RecursionError"),
    attack(
        "63_background_after_turn",
        f"import os\nif os.fork() == 0:\n if os.fork() == 0:\n{_STRAY}\n os._exit(0)\n'left it running'",
        "left it running",
        after=stands_still,
    ),
    attack(
        "63b_background_thread",
        f"import os, threading\ndef work():\n if True:\n{_STRAY}\n"
        "threading.Thread(target=work, daemon=True).start()\n'left it running'",
        "left it running",
        after=stands_still,
    ),
    attack(
        "63c_background_event_loop",
        f"import os, threading, asyncio\nasync def work():\n if True:\n{_STRAY}; await asyncio.sleep(0)\n"
        "threading.Thread(target=asyncio.run, args=(work(),), daemon=True).start()\n'left it running'",
        "left it running",
        after=stands_still,
    ),
    attack(
        "63d_background_timer",
        "import os, signal\ndef work(*_):\n os.write(1, b'STRAY')\n with open('grows', 'a') as f: f.write('x')\n"
        "signal.signal(signal.SIGALRM, work)\nsignal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\n"
        "'left it running'",
        "left it running",
        after=stands_still,
    ),
    attack("61g_exit_in_the_middle", "import os\nprint('fine')\nos._exit(0)", outcome=("lost",)),
    attack(
        "61h_patch_everything",
        "import builtins, json, sys, os\njson.loads = json.dumps = lambda *a, **k: {}\n"
        "os.write_, os.read_ = os.write, os.read\nbuiltins.print = builtins.repr = builtins.compile = None\n"
        "sys.stdout = sys.stderr = None\nsys.modules.clear()",
        outcome=EITHER,
    ),
)
