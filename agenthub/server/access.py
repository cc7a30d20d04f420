"""Who may do what: the one table of scopes, for every operation and every route that is no operation.

A route that has no row is for `admin` alone; a test sees to it that each has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from agenthub.errors import WireError
from agenthub.server.quotas import Account

__all__ = ["OPERATION_SCOPES", "ROUTE_SCOPES", "Principal", "Scope", "need"]


class Scope(StrEnum):
    """What a token is good for."""

    PLAY = "play"
    """Play and read one's own episodes."""
    METRICS = "metrics"
    """Read /metrics, which names every token and every quarantined task's suite."""
    ADMIN = "admin"
    """Everything, on everyone's episodes."""


_ADMIN, _METRICS, _PLAY = Scope.ADMIN, Scope.METRICS, Scope.PLAY

OPERATION_SCOPES: Mapping[str, Scope] = {
    "capabilities": _PLAY,
    "suites": _PLAY,
    "suite": _PLAY,
    "tasks": _PLAY,
    "create": _PLAY,
    "step": _PLAY,
    "steps": _PLAY,
    "lease": _PLAY,
    "state": _PLAY,
    "trajectory": _PLAY,
    "delete": _PLAY,
    "fork": _PLAY,
    "file_get": _PLAY,
    "file_put": _PLAY,
    "blob_get": _PLAY,
    "blob_put": _PLAY,
    "quarantine": _ADMIN,
    "release": _ADMIN,
}

ROUTE_SCOPES: Mapping[tuple[str, str], Scope | None] = {
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/metrics"): _METRICS,
    ("GET", "/openapi.json"): _PLAY,
    ("GET", "/v1/ws"): _PLAY,
}
"""By method and path, as the router writes it; None is open to anyone."""


@dataclass(frozen=True, slots=True, eq=False)
class Principal:
    """Who asks. One object stands for one token as long as the token is as it is."""

    name: str
    """The token's name, and the owner of what it opens."""
    scopes: frozenset[Scope]
    """What it was given; `admin` includes the others."""
    account: Account
    admin: bool


def need(who: Principal, scope: Scope) -> None:
    """
    Raises:
        WireError: 403 `forbidden`: the token has not this scope.
    """
    if not who.admin and scope not in who.scopes:
        has = ", ".join(sorted(who.scopes))
        raise WireError("forbidden", 403, f"this needs a token of scope {scope}; this one has {has}")
