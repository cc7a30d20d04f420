"""agenthub: multi-turn tool-use environments for reinforcement learning of language-model agents.

Importing this package loads no torch, vllm, docker or playwright; `agenthub.client.Hub` talks to a served hub.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["__version__"]
__version__ = "0.1.0"

_LOST = [name for name in ("sandboxes", "tasks", "trainers") if not (Path(__file__).parent / name).is_dir()]
if _LOST:
    raise ImportError(
        f"agenthub/{_LOST[0]} is not a folder: this checkout lost its symbolic links "
        "(git config core.symlinks true, then git checkout agenthub/)"
    )
