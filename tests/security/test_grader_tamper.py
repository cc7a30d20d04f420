"""Case 64: a program that is wrong earns not one bit more for whatever it does to the grader.

Each part is put in front of a program that passes one of three tests. Its reward must be what the program earns alone,
or less.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from agenthub.episodes import Workbench
from agenthub.rewards.verify import verify
from agenthub.sandboxes.python.sandbox import PythonSandbox
from tests.rewards.tasks import called, make_task

pytestmark = pytest.mark.asyncio(loop_scope="module")

TESTS = """
def one(candidate): assert candidate(2, 3) == 5
def two(candidate): assert candidate("x", "y") == "xyzzy-7391"
def three(candidate):
    got = candidate(0, 10)
    assert type(got) is list and got == [10, "plugh-1847"]
"""
WRONG = "def add(a, b):\n    return 5\n"
CASES = [{"stdin": "2 3\n", "stdout": "5\n"}, {"stdin": "4 4\n", "stdout": "xyzzy-7391\n"}]
SCRIPT = "print(5)\n"
ALONE = {"unittest": 1 / 3, "io_cases": 1 / 2}

_EVERYWHERE = "('.', '/tmp', '/workspace', os.path.expanduser('~'), *sys.path)"
PARTS = {
    "a_edit_answer_and_test_files": f"""
import os, sys
for folder in {_EVERYWHERE}:
    for name in ('tests.py', 'test_solution.py', 'answer.txt', 'reward.json', 'reward.txt', 'target', 'solution.py'):
        try: open(os.path.join(folder, name), 'w').write('def one(c): pass\\ntwo = three = one\\n1.0')
        except OSError: pass
""",
    "a_answer_file_is_a_link": """
import os
for target, name in (('/dev/stdin', 'answer.txt'), ('/proc/self/fd/3', 'reward.txt'), ('/etc/passwd', 'tests.py')):
    os.symlink(target, name)
""",
    "b_sys_exit": "import sys\nsys.exit(0)\n",
    "b_os_exit": "import os\nos._exit(0)\n",
    "b_exit_later": "import os, threading\nthreading.Timer(0.02, lambda: os._exit(0)).start()\n",
    "b_exit_at_exit": "import atexit, os\natexit.register(os._exit, 0)\n",
    "c_patch_builtins": """
import builtins, json, math, time, unittest
builtins.AssertionError = type('AssertionError', (Exception,), {})
builtins.isinstance = builtins.all = lambda *a: True
builtins.eval = builtins.exec = builtins.compile = lambda *a, **k: None
builtins.type = lambda *a: list
json.loads = lambda *a, **k: 5
math.isclose = lambda *a, **k: True
time.time = time.monotonic = lambda: 0.0
unittest.TestCase.assertEqual = lambda *a: None
""",
    "c_patch_the_grading_guest": """
import gc
for o in gc.get_objects():
    name = getattr(type(o), '__name__', '')
    if name in ('Guest', 'Grader'):
        for method in ('_work', 'run', 'invoke', 'load'):
            if hasattr(o, method):
                setattr(o, method, lambda message=None, *a: {'value': 'xyzzy-7391', 'error': None})
""",
    "d_always_equal": """
class Same(str):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = str.__hash__
    def __repr__(self): return 'xyzzy-7391'
class Other(list):
    def __eq__(self, other): return True
def add(a, b): return 5 if a == 2 else (Same('x') if a == 'x' else Other())
""",
    "d_not_a_number": "def add(a, b): return 5 if a == 2 else float('nan')\n",
    "d_class_that_lies": """
class Meta(type):
    def __eq__(self, other): return True
    __hash__ = type.__hash__
class Lie(metaclass=Meta):
    __class__ = str
    def __eq__(self, other): return True
def add(a, b): return 5 if a == 2 else Lie()
""",
    "e_read_from_objects": """
import gc, inspect, sys
def add(a, b):
    if a == 2: return 5
    texts = [o for o in gc.get_objects() if isinstance(o, str)]
    for o in gc.get_objects():
        for value in gc.get_referents(o):
            if type(value) is str and value.startswith('xyz' + 'zy'): return value
    frame = inspect.currentframe()
    while frame:
        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
            if isinstance(value, str) and 'xyz' + 'zy' in value and len(value) < 20: return value
        frame = frame.f_back
""",
    "e_read_from_memory": """
import re
def add(a, b):
    if a == 2: return 5
    needle = b'xyz' + b'zy-'
    with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:
        for line in maps:
            if ' r' in line[:60] and '[v' not in line:
                low, high = (int(word, 16) for word in line.split()[0].split('-'))
                try: memory.seek(low); data = memory.read(high - low)
                except (OSError, ValueError, OverflowError): continue
                found = re.search(needle + rb'[0-9]{4}', data)
                if found: return found[0].decode()
""",
    "f_poison_files": f"""
import os, sys
for folder in {_EVERYWHERE}:
    for name in ('conftest.py', 'pytest.ini', 'sitecustomize.py', 'usercustomize.py', 'evil.pth', 'python', 'pytest'):
        try:
            open(os.path.join(folder, name), 'w').write('import os; os._exit(0)')
            os.chmod(os.path.join(folder, name), 0o755)
        except OSError: pass
os.environ['PATH'] = '/workspace'
os.environ['PYTHONPATH'] = os.environ['LD_PRELOAD'] = '/workspace'
""",
    "g_overwrite_the_tests": """
import sys, builtins
for module in [*sys.modules.values(), builtins]:
    for name in ('check', 'one', 'two', 'three', 'run_tests', 'agenthub_one', 'agenthub_two', 'agenthub_three'):
        try: setattr(module, name, lambda *a: None)
        except Exception: pass
def one(c): pass
two = three = run_tests = agenthub_one = agenthub_two = agenthub_three = one
""",
    "h_kill_the_runner": """
import os, signal
for pid in (os.getppid(), 1, *range(2, 200)):
    if pid != os.getpid():
        try: os.kill(pid, signal.SIGTERM)
        except OSError: pass
""",
    "h_child_exits_well": "import os\nif os.fork():\n    os.wait()\n    os._exit(0)\n",
    "i_print_the_pass_marker": """
import os
for fd in (1, 2):
    os.write(fd, b'OK\\n3 passed in 0.01s\\nreward: 1.0\\nEXIT_CODE:0\\n')
""",
    "i_forge_a_reply": """
import json, os
for identity in range(20):
    data = json.dumps({'id': identity, 'value': 'xyzzy-7391', 'error': None}).encode()
    os.write(3, len(data).to_bytes(4, 'big') + data)
""",
    "j_hard_code_the_visible_case": "def add(a, b): return {(2, 3): 5}.get((a, b))\n",
    "k_search_the_disk": """
import os
def add(a, b):
    if a == 2: return 5
    for root in ('/workspace', '/tmp', '/etc', '/proc/self', '/proc/1', '/dev', '/usr/share'):
        for folder, _, names in os.walk(root):
            for name in names[:200]:
                path = os.path.join(folder, name)
                try:
                    if not os.path.isfile(path) or os.path.getsize(path) > 1 << 16: continue
                    if b'xyz' + b'zy-7391' in open(path, 'rb').read(): return 'xyzzy' + '-7391'
                except OSError: pass
""",
    "l_fetch_the_solution": """
import socket, urllib.request
def add(a, b):
    if a == 2: return 5
    for host in ('1.1.1.1', '127.0.0.1', '169.254.169.254'):
        try: return socket.create_connection((host, 80), 0.2).recv(10)
        except OSError: pass
""",
}
"""Programs by the letter of their part of the family; one that defines `add` takes the place of the wrong program."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(factory: PythonSandbox) -> AsyncIterator[Workbench]:
    """A workbench in the isolation of the factory."""
    made = Workbench(isolation=factory._name)
    try:
        yield made
    finally:
        await made.close()


async def earned(bench: Workbench, check: str, code: str) -> float:
    """What a program earns; that it could not be graded at all would raise."""
    args: dict[str, Any] = {"seconds": 3.0, "partial": True}
    if check == "unittest":
        args |= {"tests": TESTS, "functions": ("one", "two", "three"), "entry": "add"}
    else:
        args |= {"cases": CASES}
    verdict = await verify(make_task((check, args)), (called(code),), None, bench.code_box)
    return verdict.outcome


@pytest.mark.parametrize("check", ["unittest", "io_cases"])
@pytest.mark.parametrize("part", PARTS)
async def test_64_grader_tamper(bench: Workbench, part: str, check: str) -> None:
    code = PARTS[part]
    if check == "io_cases":
        code += "\nimport sys\nprint(5)\n" if "def add" not in code else "\nprint(add(4, 4))\n"
    elif "def add(" not in code:
        code += WRONG
    assert await earned(bench, check, code) <= ALONE[check]


async def test_the_wrong_program_alone_earns_its_share_and_a_right_one_all(bench: Workbench) -> None:
    assert await earned(bench, "unittest", WRONG) == ALONE["unittest"]
    assert await earned(bench, "io_cases", SCRIPT) == ALONE["io_cases"]
    right = "def add(a, b): return {2: 5, 'x': 'xyzzy-7391'}.get(a, [10, 'plugh-1847'])"
    assert await earned(bench, "unittest", right) == 1.0
