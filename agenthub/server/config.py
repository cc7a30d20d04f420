"""Settings of `agenthub serve`, with their defaults."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from agenthub.errors import ConfigError, nearest
from agenthub.registry import registry
from agenthub.server.door import Patience, Tls
from agenthub.server.logs import LogFormat, LogLevel

__all__ = ["AUTO_TOKEN", "TOKEN_VARIABLE", "ServeConfig", "default_log", "find_token"]

TOKEN_VARIABLE = "AGENTHUB_TOKEN"
AUTO_TOKEN = "auto"


def default_log() -> Path:
    """Where the episode log is kept where nothing else is said: the user's state folder."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "agenthub" / "episodes.sqlite"


def find_token(flag: str | None, file: Path | None) -> str | None:
    """The token: `auto`, or the file's, or the environment's; None where there is none.

    Raises:
        ConfigError: the flag holds a token (any process of this machine could read it), or the file cannot be read.
    """
    if flag is not None and flag != AUTO_TOKEN:
        raise ConfigError("--token", f"takes only `auto`; give the token in {TOKEN_VARIABLE} or --token-file")
    if flag is not None or file is None:
        return flag or os.environ.get(TOKEN_VARIABLE) or None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), f"the token cannot be read: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """How one hub serves."""

    host: str = "127.0.0.1"
    port: int = 8700
    """0 lets the system choose; `ready_fd` and `ready_file` tell which."""
    tasks: tuple[Path, ...] = ()
    """Suite files, or folders of them; empty is the packaged folder."""
    log: Path = field(default_factory=default_log)
    isolation: str = "jail"
    token: str | None = field(default=None, repr=False)
    """Bearer token that every request must carry; None is allowed on loopback alone. `auto` makes one and prints it."""
    tokens: Path | None = None
    """File of named tokens; read again when it changes."""
    tls: Tls | None = None
    """Serve over TLS."""
    patience: Patience = field(default_factory=Patience)
    """How long a slow client is waited for, and how many may come."""
    log_format: LogFormat = "text"
    log_level: LogLevel = "warning"
    max_episodes: int = 8192
    """Live episodes; more are refused with 429."""
    memory_mb: int | None = None
    """MiB that the boxes of all live episodes may ask for together; more are refused with 429. None is 80% of the
    machine's memory, or of the cgroup's limit."""
    max_body_mb: int = 32
    """MiB of one request body or WebSocket frame."""
    ready_fd: int | None = None
    """Descriptor that gets one line of JSON `{"url", "port", "pid"}` once requests are served."""
    ready_file: Path | None = None
    """File that gets the same."""
    exit_with_parent: bool = False
    """Stop when the process that started this one is gone."""
    stop_s: float = 0.8
    """Seconds that a stop may take before what is left is killed."""
    grace_s: float = 30.0
    """Seconds that boxes outlive a killed hub, for another on the same log to go on with them. 0: they end with it,
    and what was running is lost."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError("port", f"is {self.port}; expected 0 to 65535")
        for name, given, known in (
            ("isolation", self.isolation, registry("isolation").names()),
            ("log_format", self.log_format, get_args(LogFormat)),
            ("log_level", self.log_level, get_args(LogLevel)),
        ):
            if given not in known:
                raise ConfigError(name, f"is {given!r}{nearest(given, known)}")
        if self.patience.max_connections < 1:
            raise ConfigError("max_connections", f"is {self.patience.max_connections}; expected 1 or more")
        for name in ("max_episodes", "max_body_mb"):
            if getattr(self, name) < 1:
                raise ConfigError(name, f"is {getattr(self, name)}; expected 1 or more")
        if not 0 <= self.grace_s <= 3600:
            raise ConfigError("grace_s", f"is {self.grace_s:g}; expected 0 to 3600 seconds")
        if self.memory_mb is not None and self.memory_mb < 1:
            raise ConfigError("memory_mb", f"is {self.memory_mb}; expected 1 or more")
        if self.token is not None and self.token != AUTO_TOKEN and len(self.token) < 16:
            raise ConfigError("token", "is shorter than 16 characters")
