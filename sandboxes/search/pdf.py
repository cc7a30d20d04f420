"""PDF as text, read in a box: a PDF is a program in all but name, and its readers have been attacked before."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import zipfile
from importlib.util import find_spec
from pathlib import Path

from agenthub.errors import BoxLost, UserError
from agenthub.isolation import Limits
from agenthub.records import Call
from agenthub.registry import registry
from agenthub.sandbox import SandboxFactory, SandboxSpec
from agenthub.sandboxes.search.pages import Page

__all__ = ["PdfReader"]

SECONDS = 20.0
MOST_BYTES = 8 << 20
_PROGRAM = """
import json, sys
sys.path.insert(0, "reader.zip")
import pypdf
reader = pypdf.PdfReader("in.pdf")
pages, size = [], 0
for page in reader.pages[:500]:
    pages.append(page.extract_text() or "")
    size += len(pages[-1])
    if size > 2_000_000:
        break
title = reader.metadata.title if reader.metadata else ""
text = json.dumps({"title": str(title or ""), "text": "\\n\\n".join(pages)})
open("out.json", "w").write(text)
"""


class PdfReader:
    """Reads PDFs, each in a fresh box of the hub's isolation."""

    def __init__(self, isolation: str) -> None:
        self._isolation = isolation
        self._factory: SandboxFactory | None = None
        self._lock = asyncio.Lock()

    async def page(self, data: bytes) -> Page:
        """The text of a PDF.

        Raises:
            UserError: it cannot be read within the limits, or this hub cannot read PDFs.
            HostFault: no box could be started.
        """
        factory = await self._open()
        spec = SandboxSpec(
            files={"reader.zip": _reader(), "in.pdf": data}, limits=Limits(memory_mb=512, disk_mb=64, pids=16)
        )
        box = await factory.start(spec)
        try:
            seen = await box.call(Call(id="pdf", tool="python", arguments={"code": _PROGRAM}), timeout_s=SECONDS)
            if seen.failed:
                raise UserError(f"the PDF cannot be read: {seen.text.strip().splitlines()[-1][:200]}")
            row = json.loads(await box.read_file("out.json", max_bytes=MOST_BYTES))
            return Page(title=str(row["title"])[:500], text=str(row["text"]))
        except (BoxLost, ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(f"the PDF cannot be read: {type(error).__name__}") from error
        finally:
            await box.close()

    async def close(self) -> None:
        """Close the boxes."""
        if self._factory is not None:
            factory, self._factory = self._factory, None
            await factory.close()

    async def _open(self) -> SandboxFactory:
        async with self._lock:
            if self._factory is None:
                made: SandboxFactory = registry("sandbox").load("python")(isolation=self._isolation)
                await made.open()
                self._factory = made
            return self._factory


@functools.cache
def _reader() -> bytes:
    """pypdf, which is Python alone, as one file. Raises UserError where it is not installed."""
    found = find_spec("pypdf")
    if found is None or found.origin is None:
        raise UserError("PDFs need pypdf: pip install 'agenthub[search]'")
    folder = Path(found.origin).parent
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*.py")):
            archive.write(path, path.relative_to(folder.parent).as_posix())
    return packed.getvalue()
