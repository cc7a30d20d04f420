"""The judge's third step: the kernel takes a submission's declarations in a process that never saw the submission.

Several submissions share one start. Each begins from the imported environment alone, so none can help or harm another
but by taking the process down; then those that were not reached are replayed again without it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agenthub.errors import HostFault
from agenthub.sandboxes.lean.box import NOT_BEGUN, Ahead, Compiler, Ran
from agenthub.sandboxes.lean.gather import Gather
from agenthub.sandboxes.lean.verdict import Reason

__all__ = ["Replayer"]

_MOST = 16
_WAIT_S = 10.0
"""A replay waits so long for submissions that are being compiled: a start costs as much as a compile."""
_USUAL = ((), ("Init",))
"""Imports for which a kernel waits; others are rare, and each kind that waits takes its memory."""
_GO = ("agenthub-go", b"")
_SAID = {b"ok": Reason.OK, b"reject": Reason.KERNEL_REJECT, b"limit": Reason.TIMEOUT}


@dataclass(frozen=True, slots=True)
class _Asked:
    numbers: str


class Replayer:
    """The kernel, behind batches for each list of imports."""

    def __init__(self, compiler: Compiler, *, seconds: float, more: Callable[[], bool] = lambda: False) -> None:
        """
        Args:
            seconds: of a start, and again of each submission.
            more: True while submissions are on their way that could share a start.
        """
        self._compiler, self._seconds, self._more = compiler, seconds, more
        self._gathers: dict[tuple[str, ...], Gather[_Asked, Reason]] = {}
        self.starts = 0
        """Processes so far."""

    async def replay(self, numbers: str, imports: Sequence[str]) -> Reason:
        """OK, KERNEL_REJECT, TIMEOUT, OOM or CRASH. Raises HostFault."""
        key = tuple(imports)
        if key not in self._gathers:
            self._gathers[key] = Gather(functools.partial(self._all, key), most=_MOST, wait_s=_WAIT_S, more=self._more)
        return await self._gathers[key].get(_Asked(numbers))

    async def _all(self, imports: tuple[str, ...], asked: Sequence[_Asked]) -> list[Reason]:
        found: list[Reason] = []
        alone = False
        while len(found) < len(asked):
            todo = asked[len(found) :][: 1 if alone else None]
            said, ran = await self._once(imports, [one.numbers for one in todo])
            found += said
            if len(said) == len(todo):
                alone = False
            elif alone:
                # It took the process down with nobody beside it.
                found.append(_fault(ran))
                alone = False
            else:
                alone = True
        return found

    async def _once(self, imports: tuple[str, ...], asked: Sequence[str]) -> tuple[list[Reason], Ran]:
        """What was said of the first ones, as far as it came."""
        self.starts += 1
        modules = ", ".join("{ module := `" + name + " }" for name in imports)
        source = f"{_program()}\n#eval start #[{modules}]\n"
        ahead = Ahead(arguments=("-j2", "--json", "Replay.lean"), files=(("Replay.lean", source.encode()), _GO))
        files = {f"{i}.numbers": one.encode() for i, one in enumerate(asked)} | {"count": f"{len(asked)} ".encode()}
        seconds, collect = self._seconds * (1 + len(asked)), [f"{i}.said" for i in range(len(asked))]
        ran = Ran(code=NOT_BEGUN)
        if self._compiler.warm and imports in _USUAL:
            ran = await self._compiler.go_on(ahead, files, seconds=seconds, collect=collect)
        if ran.code == NOT_BEGUN:
            all_files = {**dict(ahead.files), **files}
            ran = await self._compiler.run(all_files, ahead.arguments, seconds=seconds, collect=collect)
        said: list[Reason] = []
        for index in range(len(asked)):
            word = ran.files.get(f"{index}.said")
            if word not in _SAID:
                break
            said.append(_SAID[word])
        if not said and ran.code not in (None, 0) and not ran.oom and "error" in ran.out and '"Replay.lean"' in ran.out:
            raise HostFault(f"the replay program does not run on this toolchain: {ran.out[-500:]}")
        return said, ran


def _fault(ran: Ran) -> Reason:
    if ran.late:
        return Reason.TIMEOUT
    return Reason.OOM if ran.oom else Reason.CRASH


@functools.cache
def _program() -> str:
    return (Path(__file__).parent / "Replay.lean").read_text(encoding="utf-8")
