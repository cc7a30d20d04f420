"""`agenthub serve`: offer episodes over HTTP."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, cast

import typer

__all__ = ["command"]

_SWITCH_S = 0.0005
_COLLECT = (50_000, 20, 100)


def command(
    tasks: Annotated[list[Path] | None, typer.Option(help="suite file or folder; the packaged suites if none")] = None,
    host: Annotated[str, typer.Option(help="address to listen on; beyond loopback a token is needed")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 lets the system choose")] = 8700,
    log: Annotated[Path | None, typer.Option(help="SQLite file of the episode log")] = None,
    isolation: Annotated[str, typer.Option(help="how code is kept in: jail, docker, gvisor")] = "jail",
    token: Annotated[str | None, typer.Option(help="only `auto`: make a token and print it once")] = None,
    token_file: Annotated[Path | None, typer.Option(help="file that holds the token")] = None,
    tokens: Annotated[Path | None, typer.Option(help="file of named tokens; see `agenthub tokens`")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="certificate chain, PEM: serve over TLS")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="the certificate's private key, PEM")] = None,
    log_format: Annotated[str, typer.Option(help="lines of the log: text or json")] = "text",
    log_level: Annotated[str, typer.Option(help="debug (every request), info, warning or error")] = "warning",
    max_connections: Annotated[int, typer.Option(help="open connections; more are closed at once")] = 10_000,
    max_episodes: Annotated[int, typer.Option(help="live episodes; more are refused with 429")] = 8192,
    memory_mb: Annotated[int | None, typer.Option(help="MiB that all boxes may ask for; 80% of what there is")] = None,
    max_body_mb: Annotated[int, typer.Option(help="MiB of one request or frame")] = 32,
    ready_fd: Annotated[int | None, typer.Option(help="descriptor that gets {url, port, pid} when served")] = None,
    ready_file: Annotated[Path | None, typer.Option(help="file that gets {url, port, pid} when served")] = None,
    grace_s: Annotated[float, typer.Option(help="s that boxes outlive a killed hub; 0: they end with it")] = 30.0,
    exit_with_parent: Annotated[bool, typer.Option("--exit-with-parent", help="stop when the parent ends")] = False,
) -> None:
    """Serve episodes until SIGINT or SIGTERM. The token is in AGENTHUB_TOKEN or --token-file, never in a flag."""
    from agenthub.errors import ConfigError
    from agenthub.server.config import ServeConfig, default_log, find_token
    from agenthub.server.door import Patience, Tls
    from agenthub.server.logs import LogFormat, LogLevel
    from agenthub.server.serve import serve

    if (tls_cert is None) != (tls_key is None):
        raise ConfigError("--tls-cert, --tls-key", "TLS needs both")
    config = ServeConfig(
        host=host,
        port=port,
        tasks=tuple(tasks or ()),
        log=log or default_log(),
        isolation=isolation,
        token=find_token(token, token_file),
        tokens=tokens,
        tls=Tls(cert=tls_cert, key=tls_key) if tls_cert and tls_key else None,
        patience=Patience(max_connections=max_connections),
        log_format=cast(LogFormat, log_format),
        log_level=cast(LogLevel, log_level),
        max_episodes=max_episodes,
        memory_mb=memory_mb,
        max_body_mb=max_body_mb,
        ready_fd=ready_fd,
        ready_file=ready_file,
        grace_s=grace_s,
        exit_with_parent=exit_with_parent,
    )
    # The log's writer shares the interpreter's lock with the event loop: 5 ms, the usual turn, is ten steps long.
    sys.setswitchinterval(_SWITCH_S)
    # Live episodes are many objects and few cycles: with the usual thresholds a third of the time went into looking.
    gc.set_threshold(*_COLLECT)
    with asyncio.Runner(loop_factory=_event_loop()) as runner:
        runner.run(serve(config))


def _event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed; None is asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
