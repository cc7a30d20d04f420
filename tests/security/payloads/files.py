"""Files as a way to the hub or to another episode: what it reads, writes, lists and unpacks. Cases 36 to 39, 51, 52."""

from __future__ import annotations

import asyncio
import contextlib
import io
import tarfile
from collections.abc import Awaitable
from pathlib import Path

import pytest

from agenthub.errors import UserError
from agenthub.records import Call
from agenthub.sandbox import Sandbox
from agenthub.sandboxes.shell.tree import unpack
from tests.security.payloads.attack import attack

__all__ = ["FILES"]

_QUICK_S = 5.0
_UPLOADS = ("../x", "/etc/x", "a/../../x", "./x", "a//b", "a\0b", "", ".", "..", "a/..")


async def refused(act: Awaitable[object]) -> None:
    """The hub answers at once that it does not do this."""
    async with asyncio.timeout(_QUICK_S):
        with pytest.raises(UserError):
            await act


def written_outside() -> list[Path]:
    """What an attack on the hub's file functions made of the host's folders."""
    return [path for folder in ("/tmp", "/etc") for path in Path(folder).glob("agenthub-3[67]*")]


async def text_of(box: Sandbox, code: str) -> str:
    """What a turn of a sandbox shows."""
    return (await box.call(Call(id="0.0", tool="python", arguments={"code": code}), timeout_s=20)).text


async def links_lead_nowhere(victim: Sandbox, fresh: Sandbox) -> None:
    """36: neither way through a link."""
    del fresh
    for path in ("file", "root/etc/hostname", "up/hostname", "environ", "self/environ", "root", "loop", "dangling"):
        await refused(victim.read_file(path))
    for path in ("file", "root/tmp/agenthub-36", "up/agenthub-36", "dangling"):
        await refused(victim.write_file(path, b"WRITTEN"))
    assert await victim.list_files() == []
    assert written_outside() == []


async def race(victim: Sandbox) -> None:
    """37: the hub reads and writes while a folder turns into a link and back."""
    await asyncio.sleep(0.2)
    for _ in range(150):
        with contextlib.suppress(UserError):
            assert await victim.read_file("swapped/hostname") == b"inside"
        with contextlib.suppress(UserError):
            await victim.write_file("swapped/agenthub-37", b"x")
        await asyncio.sleep(0)


async def race_was_lost(victim: Sandbox, fresh: Sandbox) -> None:
    del victim, fresh
    assert written_outside() == []


async def odd_files_are_no_files(victim: Sandbox, fresh: Sandbox) -> None:
    """38: nothing but regular files is read, and none of the others makes the hub wait."""
    del fresh
    for path in ("fifo", "socket", "folder", "stdin"):
        await refused(victim.read_file(path))
        await refused(victim.write_file(path, b"x"))
    await refused(victim.read_file("huge"))
    assert await victim.read_file("other-name") == b"mine"
    assert await victim.list_files() == ["huge", "mine", "other-name"]


async def uploads_stay_inside(victim: Sandbox, fresh: Sandbox) -> None:
    """39: names that leave the workspace, archives that do, and more than fits."""
    del fresh
    for path in _UPLOADS:
        await refused(victim.write_file(path, b"x"))
    await refused(victim.write_file("large", b"x" * (9 << 20)))
    for name in ("../x", "a/../../x"):
        with pytest.raises(UserError):
            unpack(_archive(name, b"x"), max_bytes=1 << 20)
    assert list(unpack(_archive("/etc/x", b"x"), max_bytes=1 << 20)) == ["etc/x"]
    with pytest.raises(UserError):
        unpack(_archive("bomb", b"\0" * (2 << 20)), max_bytes=1 << 20)


def _archive(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        file.addfile(member, io.BytesIO(data))
    return out.getvalue()


async def next_is_clean(victim: Sandbox, fresh: Sandbox) -> None:
    """51: an interpreter that starts after the poisoning knows nothing of it."""
    del victim
    code = "import sys, os, json, random\n"
    code += "print('POISON' in sys.modules, hasattr(os, 'POISON'), hasattr(__builtins__, 'POISON'), "
    code += "json.loads('1'), 'POISON' in repr(sys.path), os.listdir('.'), os.listdir('/tmp'))"
    assert "False False False 1 False [] []" in await text_of(fresh, code)


async def nothing_is_shared(victim: Sandbox, fresh: Sandbox) -> None:
    """52: what one episode left where it could, another does not find."""
    del victim
    look = """
import ctypes, os, socket
found = [folder for folder in ('/tmp', '/dev/shm', '/workspace') if os.path.exists(folder + '/agenthub-52')]
libc = ctypes.CDLL(None)
found += ['segment'] * (libc.shmget(0x52, 4096, 0) >= 0) + ['queue'] * (libc.msgget(0x52, 0) >= 0)
s = socket.socket(socket.AF_UNIX)
found += ['socket'] * (s.connect_ex('\\0agenthub-52') == 0)
print(found)
"""
    assert "[]\n" in await text_of(fresh, look)


FILES = (
    attack(
        "36_symlink_in_workdir",
        "import os\nfor target, name in (('/etc/hostname', 'file'), ('/', 'root'), ('../../../etc', 'up'), "
        "('/proc/1/environ', 'environ'), ('/proc/self', 'self'), ('loop', 'loop'), "
        "('/tmp/agenthub-36-target', 'dangling')): os.symlink(target, name)\nprint('linked')",
        "linked",
        after=links_lead_nowhere,
    ),
    attack(
        "37_rename_race",
        "import os, time\nos.makedirs('swapped', exist_ok=True); open('swapped/hostname', 'w').write('inside')\n"
        "os.symlink('/etc', 'link')\nstop = time.monotonic() + 1.0\nwhile time.monotonic() < stop:\n"
        " for old, new in (('swapped', 'real'), ('link', 'swapped'), ('swapped', 'link'), ('real', 'swapped')):\n"
        "  try: os.rename(old, new)\n  except OSError: pass\nprint('raced')",
        "raced",
        during=race,
        after=race_was_lost,
    ),
    attack(
        "38_hardlink_fifo_device",
        "import os, socket\nopen('mine', 'w').write('mine'); os.link('mine', 'other-name'); os.mkfifo('fifo')\n"
        "os.mkdir('folder'); os.symlink('/dev/stdin', 'stdin'); socket.socket(socket.AF_UNIX).bind('socket')\n"
        "os.truncate(os.open('huge', os.O_CREAT | os.O_WRONLY), 7 << 20)\n"
        "for act in (lambda: os.link('/etc/passwd', 'own'), lambda: os.mknod('device', 0o20666, os.makedev(1, 1))):\n"
        " try:\n  act()\n  print('MADE')\n except OSError: pass\nprint('done')",
        "done",
        after=odd_files_are_no_files,
    ),
    attack(
        "39_upload_out_of_the_workspace", "import os\nos.mkdir('a')\nprint('ready')", "ready", after=uploads_stay_inside
    ),
    attack(
        "51_poison_the_next_episode",
        "import os, sys, site, builtins, json\nos.POISON = builtins.POISON = 1\njson.loads = lambda text: 'POISON'\n"
        "for folder in {'.', '/tmp', os.path.expanduser('~'), *sys.path, *site.getsitepackages(), "
        "site.getusersitepackages(), '/usr/lib/python3/dist-packages', '/etc/ld.so.preload', '/etc'}:\n"
        " for name in ('sitecustomize.py', 'usercustomize.py', 'POISON.pth', 'random.py', 'ld.so.preload'):\n"
        "  try:\n   os.makedirs(folder, exist_ok=True)\n   open(os.path.join(folder, name), 'w').write('POISON = 1')\n"
        "  except OSError: pass\nprint('left')",
        "left",
        after=next_is_clean,
    ),
    attack(
        "52_covert_channel",
        "import ctypes, os, socket\nfor path in ('/tmp/agenthub-52', '/dev/shm/agenthub-52', 'agenthub-52'):\n"
        " open(path, 'w').write('x')\nlibc = ctypes.CDLL(None)\n"
        "print(libc.shmget(0x52, 4096, 0o1666) >= 0, libc.msgget(0x52, 0o1666) >= 0)\n"
        "s = socket.socket(socket.AF_UNIX)\ns.bind('\\0agenthub-52')\ns.listen()\nprint('left')",
        "left",
        after=nothing_is_shared,
    ),
)
