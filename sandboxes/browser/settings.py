"""The settings of one browser episode: which page, how it begins, and what is shown of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from agenthub.errors import UnknownName, UserError

__all__ = ["CHANNELS", "RESETS", "Settings", "settings_of"]

CHANNELS = (
    "goal",
    "url",
    "title",
    "tabs",
    "axtree",
    "dom",
    "focused",
    "marks",
    "action",
    "error",
    "elapsed",
    "screenshot",
    "som",
)
"""What can be shown after an action, in this order."""
RESETS = ("page", "reload", "context", "browser")
"""The rungs of the ladder, from the quickest to the one that shares nothing."""
SITES = ("files", "miniwob", "shop")
_MOST_PIXELS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a task's tool says under `config`."""

    site: str = "files"
    """`miniwob`: a page of MiniWoB++; `files`: the task's own files; `shop`: a shop with a database of its own."""
    page: str = "index.html"
    """Path on the site where the episode begins; of MiniWoB++ the page's name."""
    seed: int = 0
    """Of a MiniWoB++ page."""
    reset: str = "context"
    """What an episode shares with those before it. page: everything; reload: the tab; context: the browser, its own
    cookies and storage; browser: nothing, it has a box of its own with the task's limits."""
    channels: tuple[str, ...] = ("goal", "axtree", "error")
    width: int = 1280
    height: int = 720
    clock: str = "page"
    """page: timers and dates of the page follow a clock that the hub lets pass; wall: they follow the real one."""
    settle_ms: int = 500
    """An action is done when the page has nothing more to do within so many milliseconds of its time."""
    image: str = "png"
    """png or webp."""

    @property
    def url(self) -> str:
        """Where the episode begins."""
        path = f"miniwob/{self.page}.html" if self.site == "miniwob" else self.page.removeprefix("/")
        return f"{self.origin}/{path}"

    @property
    def origin(self) -> str:
        """Of the episode's site."""
        return f"http://{self.site}.test"


def settings_of(params: Mapping[str, Any]) -> Settings:
    """The settings of a tool's config.

    Raises:
        UserError: a key is not known, or a value does not fit.
    """
    known = {field.name: field for field in fields(Settings)}
    given: dict[str, Any] = {}
    for name, value in params.items():
        if name not in known:
            raise UnknownName("setting of the browser", name, known)
        if isinstance(value, list):
            value = tuple(value)
        wanted = {"int": int, "str": str}.get(str(known[name].type), tuple)
        if type(value) is not wanted:
            raise UserError(f"browser setting {name} is {value!r:.100}; expected {known[name].type}")
        given[name] = value
    settings = Settings(**given)
    choices = {"site": SITES, "reset": RESETS, "clock": ("page", "wall"), "image": ("png", "webp")}
    for name, allowed in choices.items():
        if getattr(settings, name) not in allowed:
            raise UnknownName(f"browser {name}", getattr(settings, name), allowed)
    for channel in settings.channels:
        if channel not in CHANNELS:
            raise UnknownName("browser channel", str(channel), CHANNELS)
    if not (0 < settings.width <= _MOST_PIXELS and 0 < settings.height <= _MOST_PIXELS):
        raise UserError(f"a window is of 1 to {_MOST_PIXELS} pixels, not {settings.width} x {settings.height}")
    if settings.site == "shop" and settings.reset not in ("context", "browser"):
        raise UserError(f"browser reset is {settings.reset!r}; every episode of the shop has a context of its own")
    if not (0 <= settings.settle_ms <= 60_000 and settings.seed >= 0):
        raise UserError("browser settings: settle_ms is of 0 to 60000, seed is 0 or more")
    return settings
