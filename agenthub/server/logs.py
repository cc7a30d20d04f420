"""The hub's log: a line of text or of JSON for each event, with the request, token and episode that it is about."""

from __future__ import annotations

import itertools
import json
import logging
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from aiohttp.http_exceptions import HttpProcessingError

__all__ = ["FACTS", "LogFormat", "LogLevel", "event", "logged", "request_id"]

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
FACTS: ContextVar[Mapping[str, Any]] = ContextVar("agenthub_log_facts")
"""What every line says that is written while one request is served: `request_id`, `token` (its name)."""
_SANE = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_prefix = secrets.token_hex(4)
_numbers = itertools.count(1)
_LOGGERS = tuple(logging.getLogger(name) for name in ("agenthub", "aiohttp", "asyncio"))


def request_id(given: str | None) -> str:
    """The client's own id of a request where it is sane, or a new one."""
    if given is not None and _SANE.fullmatch(given):
        return given
    return f"{_prefix}-{next(_numbers):x}"


def event(logger: logging.Logger, level: int, message: str, **facts: Any) -> None:
    """Log what happened; the facts that are None are left out."""
    logger.log(level, message, extra={"facts": {name: fact for name, fact in facts.items() if fact is not None}})


@contextmanager
def logged(form: LogFormat, level: LogLevel) -> Iterator[None]:
    """Send the hub's log to standard error inside the context, and what aiohttp and asyncio have to say with it."""
    handler = _Stderr()
    handler.setFormatter(_Json() if form == "json" else _Text())
    handler.addFilter(_is_ours)
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in _LOGGERS]
    for logger in _LOGGERS:
        logger.handlers[:] = [handler]
        logger.propagate = False
    _LOGGERS[0].setLevel(level.upper())
    try:
        yield
    finally:
        for logger, handlers, kept, propagate in before:
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(kept)


class _Stderr(logging.Handler):
    """Writes to standard error as it is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except (OSError, ValueError):
            return  # nobody reads it any more; the hub goes on


def _is_ours(record: logging.LogRecord) -> bool:
    """False for what aiohttp logs as an error where a client sent no HTTP, or went away: nobody here can mend it."""
    error = record.exc_info[1] if record.exc_info else None
    return record.name != "aiohttp.server" or not isinstance(error, HttpProcessingError | ConnectionResetError)


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    return {**FACTS.get({}), **getattr(record, "facts", {})}


class _Json(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the facts."""

    def format(self, record: logging.LogRecord) -> str:
        row: dict[str, Any] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        row |= {name: fact for name, fact in _facts(record).items() if name not in row}
        if record.exc_info:
            row["traceback"] = self.formatException(record.exc_info)
        return json.dumps(row, default=str)


class _Text(logging.Formatter):
    """A line for a person; facts as name=value. Line breaks of a client's are escaped, so that it forges no line."""

    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {name}={_plain(fact)}" for name, fact in _facts(record).items())
        line = f"{_utc(record.created)} {record.levelname:7} {_plain(record.getMessage())}{facts}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _plain(value: Any) -> str:
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(value))


def _utc(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"
