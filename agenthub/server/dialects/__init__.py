"""Other protocols over the same episodes, for clients that were written for other hubs.

    openenv         OpenEnv 0.10: routes, WebSocket and MCP session calls, under /openenv/{suite}
    mcp             the Model Context Protocol over streamable HTTP, at /mcp/{suite}
    sandboxfusion   SandboxFusion's run_code, under /sandboxfusion
    search_r1       the retrievers of Search-R1 and ZeroSearch, at /retrieve
    player          what they share: one client's session, which plays one episode at a time
    sessions        sessions that outlive a request

A dialect opens, steps and ends episodes by the hub's own operations, as the caller of the request: log, leases,
admission, quotas and outcomes are those of any other episode.
"""

from __future__ import annotations

from agenthub.server.dialects.mount import DIALECT_SCOPES, mount

__all__ = ["DIALECT_SCOPES", "mount"]
