"""A box of a task's own image, with a folder of files in it: what sessions and grading boxes are made of."""

from __future__ import annotations

from agenthub.errors import BoxLost, HostFault, UserError
from agenthub.isolation import Limits
from agenthub.sandboxes.isolation.container_box import ContainerBox
from agenthub.sandboxes.isolation.container_exec import ExecDone, ExecSpec
from agenthub.sandboxes.shell.tree import Entry, Tree, pack, unpack

__all__ = ["ShellBox"]

_TAR_S = 60.0
_COUNT = ("/bin/sh", "-c", "set -- /proc/[0-9]*; echo $#")
_OWN_PROCESSES = 3
_KILL = ("/bin/sh", "-c", "kill -9 -1")


class ShellBox:
    """A container and its workspace."""

    def __init__(self, box: ContainerBox, workdir: str, limits: Limits) -> None:
        self._box, self._workdir, self._limits = box, workdir, limits

    async def run(
        self, command: str, *, timeout_s: float, head_bytes: int, tail_bytes: int, stdin: bytes = b""
    ) -> ExecDone:
        """Run a command with the image's `sh`. Raises as `ContainerBox.exec` does."""
        spec = ExecSpec(
            argv=("/bin/sh", "-c", command),
            stdin=stdin,
            workdir=self._workdir,
            head_bytes=head_bytes,
            tail_bytes=tail_bytes,
        )
        return await self._exec(spec, timeout_s)

    async def fill(self, tree: Tree) -> None:
        """Put a folder's content into the workspace.

        Raises:
            UserError: it does not fit.
            BoxLost, HostFault: as in Sandbox.call.
        """
        if not tree:
            return
        argv = ("tar", "-x", "-p", "-f", "-", "-C", self._workdir)
        done = await self._exec(ExecSpec(argv=argv, stdin=pack(tree), head_bytes=1 << 12), _TAR_S)
        if done.code != 0:
            why = bytes(done.err.head).decode(errors="backslashreplace").strip().splitlines()
            raise UserError(f"the files do not fit into {self._workdir}: {why[0] if why else done.code}")

    async def read(self, *paths: str) -> dict[str, Entry]:
        """What the workspace holds, or of that what has exactly these paths. Raises as `fill` does."""
        most = self._limits.disk_mb << 20
        wanted = ["--no-recursion", "--", *(f"./{path}" for path in paths)] if paths else ["."]
        argv = ("tar", "-c", "-f", "-", "-C", self._workdir, *wanted)
        # A tar file is at most half as large again as many small files, and has a header for each.
        room = most + self._limits.files * 2048
        done = await self._exec(ExecSpec(argv=argv, head_bytes=room), _TAR_S)
        if done.out.dropped:
            raise UserError(f"the workspace has more than {self._limits.disk_mb} MiB")
        if done.code is None:
            raise UserError("the workspace could not be read in time")
        return unpack(bytes(done.out.head), max_bytes=most) if done.out.head else {}

    async def busy(self) -> bool:
        """True where a program runs that no command waits for: more than process 1, its `cat`, and this question."""
        done = await self._exec(ExecSpec(argv=_COUNT), _TAR_S)
        return int(bytes(done.out.head) or b"0") > _OWN_PROCESSES

    async def quiet(self) -> None:
        """End every program in the box but its process 1."""
        await self._exec(ExecSpec(argv=_KILL), _TAR_S)

    async def close(self) -> None:
        """Free the box."""
        self._box.discard()

    async def _exec(self, spec: ExecSpec, timeout_s: float) -> ExecDone:
        try:
            return await self._box.exec(spec, timeout_s=timeout_s)
        except BoxLost as lost:
            end = await self._box.kill()
            if end.host_fault:
                raise HostFault(f"the box was lost: {end.reason}") from lost
            raise
