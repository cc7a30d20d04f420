"""`agenthub serve`: offer episodes over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    tasks: Annotated[list[Path] | None, typer.Option(help="suite file or folder; the packaged suites if none")] = None,
    host: Annotated[str, typer.Option(help="address to listen on; beyond loopback a token is needed")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 lets the system choose")] = 8700,
    log: Annotated[Path | None, typer.Option(help="SQLite file of the episode log")] = None,
    isolation: Annotated[str, typer.Option(help="how code is kept in: jail, docker, gvisor")] = "jail",
    token: Annotated[str | None, typer.Option(help="only `auto`: make a token and print it once")] = None,
    token_file: Annotated[Path | None, typer.Option(help="file that holds the token")] = None,
    max_episodes: Annotated[int, typer.Option(help="live episodes; more are refused with 429")] = 8192,
    memory_mb: Annotated[int | None, typer.Option(help="MiB that all boxes may ask for; 80% of what there is")] = None,
    max_body_mb: Annotated[int, typer.Option(help="MiB of one request or frame")] = 32,
    ready_fd: Annotated[int | None, typer.Option(help="descriptor that gets {url, port, pid} when served")] = None,
    ready_file: Annotated[Path | None, typer.Option(help="file that gets {url, port, pid} when served")] = None,
    exit_with_parent: Annotated[bool, typer.Option("--exit-with-parent", help="stop when the parent ends")] = False,
) -> None:
    """Serve episodes until SIGINT or SIGTERM. The token is in AGENTHUB_TOKEN or --token-file, never in a flag."""
    import asyncio

    from agenthub.server.config import ServeConfig, default_log, find_token
    from agenthub.server.serve import serve

    config = ServeConfig(
        host=host,
        port=port,
        tasks=tuple(tasks or ()),
        log=log or default_log(),
        isolation=isolation,
        token=find_token(token, token_file),
        max_episodes=max_episodes,
        memory_mb=memory_mb,
        max_body_mb=max_body_mb,
        ready_fd=ready_fd,
        ready_file=ready_file,
        exit_with_parent=exit_with_parent,
    )
    asyncio.run(serve(config))
