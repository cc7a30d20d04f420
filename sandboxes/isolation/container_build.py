"""Images built from Dockerfiles, by the engine that runs the boxes. Blocks; nobody calls it while serving."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
import urllib3
from docker.errors import DockerException, NotFound

from agenthub.errors import HostFault, UserError
from agenthub.sandboxes.isolation.container_engine import APIError, Engine

__all__ = ["build", "exists"]

_FAILURES = (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError)


def exists(image: str) -> bool:
    """True where the engine has the image. Raises UserError where no engine answers, HostFault where it fails."""
    engine = Engine.connect()
    try:
        engine.api.inspect_image(image)
        return True
    except NotFound:
        return False
    except _FAILURES as error:
        raise HostFault(f"the engine at {engine.url} failed: {error}") from error
    finally:
        engine.close()


def build(
    image: str, context: Path, dockerfile: Path, *, timeout_s: float, say: Callable[[str], None] = lambda line: None
) -> None:
    """Build an image and give it its name.

    Args:
        timeout_s: longest silence of the engine.
        say: is told the engine's lines as they come.

    Raises:
        UserError: no engine answers, or the Dockerfile does not build: its last lines are in the message.
        HostFault: the engine failed.
    """
    engine = Engine.connect()
    try:
        engine.api.timeout = timeout_s
        rows = engine.api.build(
            path=str(context), dockerfile=str(dockerfile), tag=image, rm=True, forcerm=True, decode=True
        )
        _follow(rows, dockerfile, say)
        engine.api.inspect_image(image)
    except APIError as error:
        raise UserError(f"{dockerfile}: the engine refused: {error.explanation or error}") from None
    except _FAILURES as error:
        raise HostFault(f"the engine at {engine.url} failed while it built {dockerfile}: {error}") from error
    finally:
        engine.close()


def _follow(rows: Any, dockerfile: Path, say: Callable[[str], None]) -> None:
    last: list[str] = []
    for row in rows:
        for line in str(row.get("stream", "")).splitlines():
            if line.strip():
                last = [*last[-4:], line.strip()]
                say(line.rstrip())
        if "error" in row:
            said = " | ".join(last)
            raise UserError(f"{dockerfile} does not build: {str(row['error']).strip()} (last: {said})")
