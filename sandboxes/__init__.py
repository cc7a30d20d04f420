"""Refuses to be imported as `sandboxes`: the import path is `agenthub.sandboxes`."""

from __future__ import annotations

if __name__ == "sandboxes":
    raise ImportError("import agenthub.sandboxes, not sandboxes: the folder is part of the agenthub package")
