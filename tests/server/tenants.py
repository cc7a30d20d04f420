"""Hubs with named tokens: two tenants, one for metrics and an administrator."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agenthub.server.dispatcher import Dispatcher
from agenthub.server.door import Patience
from agenthub.server.guard import Guard
from agenthub.server.tokens import Keyring
from tests.server.harness import RunningHub, hub

__all__ = ["TOKENS", "Tenants", "tenants", "write_tokens"]

SCOPES = {"alice": "play", "bob": "play", "meter": "metrics", "root": "admin"}
TOKENS = {name: f"aht_{name}-" + "0123456789abcdef" * 2 for name in SCOPES}


@dataclass(frozen=True)
class Tenants:
    """A hub, its guard and its file of tokens."""

    hub: RunningHub
    guard: Guard
    file: Path

    @property
    def url(self) -> str:
        return self.hub.url


def write_tokens(path: Path, quotas: Mapping[str, Any] | None = None, names: tuple[str, ...] = tuple(SCOPES)) -> None:
    """A file with the tokens of `names`; `quotas` are alice's."""
    rows: dict[str, dict[str, Any]] = {
        name: {"sha256": hashlib.sha256(TOKENS[name].encode()).hexdigest(), "scopes": [SCOPES[name]]} for name in names
    }
    if quotas and "alice" in rows:
        rows["alice"]["quotas"] = dict(quotas)
    path.touch(0o600)
    path.write_text(json.dumps({"tokens": rows}))  # JSON is YAML


@asynccontextmanager
async def tenants(
    folder: Path, quotas: Mapping[str, Any] | None = None, *, patience: Patience | None = None
) -> AsyncIterator[Tenants]:
    """A hub that knows the four inside the context."""
    file, made = folder / "tokens.yaml", []
    write_tokens(file, quotas)

    def door(dispatcher: Dispatcher) -> Guard:
        made.append(Guard(dispatcher.accounts, Keyring(dispatcher.accounts, file=file)))
        return made[0]

    make: Callable[[Dispatcher], Guard] = door
    async with hub(folder, guard=make, patience=patience) as served:
        yield Tenants(served, made[0], file)
