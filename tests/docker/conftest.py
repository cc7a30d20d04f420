"""One engine for all tests of containers: the one that DOCKER_HOST names, else one that lives for these tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BASE = "agenthub/base:latest"

Build = Callable[..., str]


def _why_not() -> str:
    if os.geteuid() != 0:
        return "starting an engine needs root, and DOCKER_HOST names none"
    if not Path("/usr/bin/apt-get").exists():
        return "scripts/docker-engine knows Debian only, and DOCKER_HOST names no engine"
    return ""


@pytest.fixture(scope="package")
def engine() -> Iterator[str]:
    """DOCKER_HOST of an engine that has the base image."""
    pytest.importorskip("docker")
    if os.environ.get("DOCKER_HOST"):
        yield os.environ["DOCKER_HOST"]
        return
    if reason := _why_not():
        pytest.skip(reason)
    script = ROOT / "scripts" / "docker-engine"
    ran_before = subprocess.run([script, "alive"], check=False).returncode == 0
    try:
        done = subprocess.run([script, "start"], capture_output=True, text=True, timeout=600, check=False)
        if done.returncode != 0:
            pytest.skip(f"no engine can be started here: {done.stderr.strip()[-300:]}")
        host = done.stdout.strip().removeprefix("DOCKER_HOST=")
        os.environ["DOCKER_HOST"] = host
        yield host
        _prune(host)
    finally:
        os.environ.pop("DOCKER_HOST", None)
        if not ran_before:
            subprocess.run([script, "stop"], timeout=120, check=True)


def _prune(host: str) -> None:
    """Images that a later build has taken the name of; only of an engine that is the tests' own."""
    import docker

    client = docker.APIClient(base_url=host, version="auto", timeout=300)
    client.prune_images(filters={"dangling": True})
    client.close()


@pytest.fixture(scope="package")
def api(engine: str) -> Iterator[Any]:
    """The SDK's own view of the engine, to check ours against."""
    import docker

    client = docker.APIClient(base_url=engine, version="auto", timeout=300)
    yield client
    client.close()


@pytest.fixture(scope="package")
def build(api: Any) -> Build:
    """Builds a Dockerfile on the imported base, with the classic builder."""

    def run(tag: str, dockerfile: Path, context: Path, **args: str) -> str:
        lines = []
        for line in api.build(
            path=str(context),
            dockerfile=str(dockerfile),
            tag=tag,
            buildargs={"BASE_IMAGE": BASE} | args,
            decode=True,
            rm=True,
            forcerm=True,
            network_mode=args.pop("network", None),
        ):
            lines.append(line)
            assert "error" not in line, "".join(row.get("stream", "") for row in lines)[-3000:] + line["error"]
        return tag

    return run


@pytest.fixture(scope="package")
def python_image(build: Build) -> str:
    """The image `python` of the container isolations."""
    return build("agenthub/python", ROOT / "docker" / "python.Dockerfile", ROOT / "docker")


@pytest.fixture(params=["docker", "gvisor"])
async def isolation(request: pytest.FixtureRequest, python_image: str) -> AsyncIterator[Any]:
    """Each container isolation, open."""
    from agenthub.errors import UserError
    from agenthub.registry import registry

    made = registry("isolation").load(request.param)()
    try:
        await made.open()
    except UserError as error:
        pytest.skip(str(error))
    yield made
    await made.close()
