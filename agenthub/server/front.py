"""The hub's face to the network: tokens, TLS, spans, and the application that listens."""

from __future__ import annotations

import asyncio
import secrets
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from agenthub.errors import ConfigError, UserError
from agenthub.server.app import make_app
from agenthub.server.config import AUTO_TOKEN, TOKEN_VARIABLE, ServeConfig
from agenthub.server.dispatcher import Dispatcher
from agenthub.server.door import listening
from agenthub.server.guard import Guard, is_loopback
from agenthub.server.logs import logged
from agenthub.server.tokens import Keyring
from agenthub.server.tracing import tracing_from_environment

__all__ = ["front"]


@asynccontextmanager
async def front(dispatcher: Dispatcher, config: ServeConfig) -> AsyncIterator[str]:
    """Let requests in inside the context; gives the URL.

    SIGHUP, and a change of the file, read the tokens again, and SIGHUP the certificate.

    Raises:
        UserError: no token beyond loopback, tokens or certificate that cannot be used, an address that is in use.
    """
    with logged(config.log_format, config.log_level):
        async with _front(dispatcher, config) as url:
            yield url


@asynccontextmanager
async def _front(dispatcher: Dispatcher, config: ServeConfig) -> AsyncIterator[str]:
    shared = _shared(config)
    keyring = Keyring(dispatcher.accounts, shared=shared, file=config.tokens) if shared or config.tokens else None
    guard = Guard(dispatcher.accounts, keyring)
    tls = config.tls.context() if config.tls else None
    if tls is None and not is_loopback(config.host):
        _tell(
            "tokens and episodes travel in the clear: give --tls-cert and --tls-key, or put a proxy with TLS in front"
        )
    dispatcher.journal.tracing = tracing_from_environment()
    app = make_app(dispatcher, guard, max_body=config.max_body_mb << 20, patience=config.patience)
    loop = asyncio.get_running_loop()
    with suppress(ValueError, RuntimeError):  # no signals outside the main thread
        loop.add_signal_handler(signal.SIGHUP, _renew, guard, config, tls)
    watching = loop.create_task(guard.watch())
    try:
        async with listening(app, config.host, config.port, patience=config.patience, tls=tls) as url:
            try:
                yield url
            finally:
                dispatcher.stop()
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        with suppress(ValueError, RuntimeError):
            loop.remove_signal_handler(signal.SIGHUP)
        if dispatcher.journal.tracing is not None:
            await dispatcher.journal.tracing.close()


def _renew(guard: Guard, config: ServeConfig, tls: ssl.SSLContext | None) -> None:
    """Read tokens and certificate again; what cannot be used changes nothing."""
    guard.try_reload()
    if tls is not None and config.tls is not None:
        try:
            config.tls.load(tls)
        except ConfigError as error:
            _tell(f"the certificate is as it was: {error}")


def _shared(config: ServeConfig) -> str | None:
    if config.token == AUTO_TOKEN:
        made = secrets.token_urlsafe(32)
        _tell(f"token (shown once): {made}")
        return made
    if config.token is None and config.tokens is None and not is_loopback(config.host):
        raise UserError(
            f"host {config.host} is reachable from other machines: give --tokens, set {TOKEN_VARIABLE}, "
            "give --token-file, or let --token auto make one"
        )
    return config.token


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
