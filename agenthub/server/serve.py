"""The life of a hub process: start, say so, serve, stop.

SIGINT, SIGTERM, and with `exit_with_parent` the end of the parent process, stop it in order: no new requests, every
episode ended, every box killed, the log closed. After any other end the boxes wait `grace_s` seconds for a hub on the
same log, which goes on with them.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from agenthub.episodes import Outliving, Workbench
from agenthub.errors import HostFault
from agenthub.log import EpisodeLog
from agenthub.server.catalog import Catalog
from agenthub.server.config import ServeConfig
from agenthub.server.dispatcher import Dispatcher
from agenthub.server.front import front
from agenthub.suites.load import load_suites

__all__ = ["running", "serve"]

_PARENT_POLL_S = 0.5


async def serve(config: ServeConfig) -> None:
    """Serve until told to stop.

    Raises:
        UserError: no token beyond loopback, an unreadable suite, a port or log that is in use.
        HostFault: the log cannot be written.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    watch = loop.create_task(_watch_parent(os.getppid(), stop)) if config.exit_with_parent else None
    try:
        async with running(config) as url:
            _announce(config, url)
            await stop.wait()
    finally:
        if watch is not None:
            watch.cancel()
            await asyncio.wait([watch])
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@asynccontextmanager
async def running(config: ServeConfig) -> AsyncIterator[str]:
    """A hub that serves inside the context; gives its URL. Raises as `serve` does."""
    suites = load_suites(config.tasks, isolation=config.isolation)
    for name, lacking in suites.unavailable.items():
        _tell(f"suite {name} cannot be played here: {lacking}")
    dispatcher = Dispatcher(
        Catalog(suites, suites.unavailable),
        Workbench(config.isolation, _outliving(config)),
        EpisodeLog(config.log),
        config.log.with_name(f"{config.log.name}.blobs"),
        max_episodes=config.max_episodes,
        memory_mb=config.memory_mb,
        stop_s=config.stop_s,
        grace_s=config.grace_s,
    )
    async with dispatcher, front(dispatcher, config) as url:
        dispatcher.serves()
        # What is there now stays: no collection has to look at it again.
        gc.collect()
        gc.freeze()
        _tell(f"agenthub serving on {url} ({len(suites)} suites, isolation {config.isolation})")
        yield url


def _outliving(config: ServeConfig) -> Outliving | None:
    """Where a hub that follows this one on the same log finds its boxes; None where none is waited for."""
    if config.grace_s <= 0:
        return None
    return Outliving(folder=config.log.with_name(f"{config.log.name}.kept"), grace_s=config.grace_s)


def _announce(config: ServeConfig, url: str) -> None:
    """Tell who started this process where it serves."""
    port = int(url.rsplit(":", 1)[1])
    line = json.dumps({"url": url, "port": port, "pid": os.getpid()}) + "\n"
    try:
        if config.ready_fd is not None:
            with os.fdopen(config.ready_fd, "w") as ready:
                ready.write(line)
        if config.ready_file is not None:
            _write_whole(config.ready_file, line)
    except OSError as error:
        raise HostFault(f"cannot tell that the hub is ready: {error}") from error


def _write_whole(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(text)
    os.replace(draft, path)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def _watch_parent(parent: int, stop: asyncio.Event) -> None:
    """Set `stop` when the parent process ends, however it ends.

    PR_SET_PDEATHSIG would fire at the end of the thread that started us, which a trainer may well outlive.
    """
    while os.getppid() == parent and not stop.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _PARENT_POLL_S)
    stop.set()
