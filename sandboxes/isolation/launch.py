"""How a supervisor's process is started, and where one that outlives its hub is found again."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import agenthub
from agenthub.errors import HostFault

__all__ = ["Keep", "address", "launch", "safe"]

_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from agenthub.sandboxes.isolation.supervisor import main; "
    "sys.path.remove(sys.argv[1]); main(*map(int, sys.argv[2:5]), float(sys.argv[5]))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """What a supervisor is to outlive its hub for."""

    socket: Path
    """Where the next hub finds it. Only its owner may get at the folder."""
    grace_s: float
    """Seconds that the next hub is waited for."""


def safe(folder: Path) -> bool:
    """True where nobody but us can put anything into a folder, or take anything out."""
    facts = folder.stat()
    return facts.st_uid == os.geteuid() and not facts.st_mode & 0o077


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """A name of a socket's path that is short enough for one, within the context. Raises OSError."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _entrance(keep: Keep) -> socket.socket:
    """A socket that is bound where the next hub looks. Raises OSError."""
    keep.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not safe(keep.socket.parent):
        raise PermissionError(f"{keep.socket.parent} is not ours alone: make it mode 0700, or name another --log")
    keep.socket.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with address(keep.socket) as name:
            made.bind(name)
    except OSError:
        made.close()
        raise
    return made


def launch(keep: Keep | None) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The supervisor's process and our end of its socket. Raises HostFault."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    folder = str(Path(agenthub.__file__).resolve().parent.parent)
    # A fixed hash seed keeps the order of sets equal from run to run; the environment holds nothing else.
    try:
        with theirs, contextlib.ExitStack() as stack:
            passed = [theirs.fileno()]
            numbers = [str(theirs.fileno()), str(os.getpid())]
            if keep is not None:
                passed.append(stack.enter_context(_entrance(keep)).fileno())
                numbers += [str(passed[-1]), str(keep.grace_s)]
            else:
                numbers += ["-1", "0"]
            process = subprocess.Popen(
                [sys.executable, "-S", "-s", "-P", "-B", "-c", _BOOT, folder, *numbers],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
                cwd="/",
                pass_fds=passed,
                start_new_session=True,
            )
    except OSError as error:
        ours.close()
        raise HostFault(f"the supervisor did not start: {error}") from error
    return process, ours
