"""The warm images of the jail: what a mold imports before it is copied, and the resident program of its boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["IMAGES", "Image"]

_STANDARD = (
    "_strptime abc array ast base64 bisect calendar cmath collections collections.abc contextlib copy dataclasses "
    "datetime decimal enum fractions functools hashlib heapq io itertools json linecache math numbers operator os "
    "pathlib pprint random re shutil signal statistics string struct subprocess textwrap threading time timeit "
    "traceback types typing unicodedata"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One warm image."""

    resident: str
    """`module:function` that runs in a box; called as function(control_fd) and never returns."""
    imports: tuple[str, ...]
    """Modules that every box has loaded from its start."""


IMAGES: Mapping[str, Image] = {
    "python": Image(resident="agenthub.sandboxes.python.guest:main", imports=tuple(_STANDARD.split())),
}
