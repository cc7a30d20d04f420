"""compose.yaml as it ships: the hub comes up, is what it claims to be, and an episode plays in it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agenthub.sandboxes.isolation import seccomp
from tests.docker.conftest import BASE, ROOT

pytestmark = pytest.mark.docker

WHEELS = ROOT / ".cache" / "docker" / "wheels"
SUITE = """
schema: agenthub.suite/1
suite: {name: inside, version: "1"}
tasks:
  - id: sum
    prompt: {user: "What is 6 * 7?"}
    tools: [{uses: python}]
    target: {answer: 42}
    verifier: {checks: [{uses: numeric}]}
"""


def _compose() -> list[str]:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    pytest.skip("neither docker-compose nor the compose plugin is here")


def _wheels() -> None:
    """Wheels of agenthub as it is now, and once of what it needs, until that changes."""
    needs = repr(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"])
    made_for = WHEELS.with_suffix(".needs")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(WHEELS)]
    for old in WHEELS.glob("agenthub-*.whl"):
        old.unlink()
    kept = WHEELS.is_dir() and made_for.is_file() and made_for.read_text(encoding="utf-8") == needs
    alone = ["--no-deps"] if kept else []
    done = subprocess.run([*pip, *alone, str(ROOT)], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        pytest.skip(f"wheels cannot be made here: {done.stderr.strip()[-300:]}")
    made_for.write_text(needs, encoding="utf-8")


class Project:
    """The running project."""

    def __init__(self, folder: Path, engine: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.folder, self.token = folder, secrets.token_hex(16)
        self.command = [*_compose(), "-p", f"agenthub-test-{os.getpid()}"]
        self.environment = os.environ | {
            "DOCKER_HOST": engine,
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
            "BASE_IMAGE": BASE,
            "AGENTHUB_TOKEN": self.token,
            "AGENTHUB_PORT": str(self.port),
            "AGENTHUB_MEMORY": "1g",
        }

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self.command, *arguments],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def ask(self, path: str, body: dict[str, Any] | None = None, *, token: bool = True) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.token}"} if token else {}),
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.msg = f"{error.msg}: {error.read().decode()[:2000]}"
            raise


@pytest.fixture(scope="module")
def project(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """compose.yaml, up and healthy."""
    _compose()
    _wheels()
    folder = tmp_path_factory.mktemp("compose")
    shutil.copy(ROOT / "compose.yaml", folder)
    shutil.copytree(ROOT / "docker", folder / "docker")
    shutil.copytree(WHEELS, folder / "wheels")
    made = Project(folder, engine)
    try:
        made.run("up", "--build", "--detach")
        yield made
    finally:
        made.run("down", "--volumes", "--timeout", "2")


@pytest.fixture(scope="module")
def facts(project: Project, api: Any) -> Any:
    """What the engine says of the hub's container, once it is healthy."""
    container = project.run("ps", "--quiet", "hub").strip()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = api.inspect_container(container)
        if found["State"]["Health"]["Status"] == "healthy":
            return found
        assert found["State"]["Running"], api.logs(container).decode()[-2000:]
        time.sleep(0.5)
    raise AssertionError(f"not healthy: {found['State']['Health']}\n{api.logs(container).decode()[-2000:]}")


def test_the_hub_is_limited_unprivileged_and_has_no_way_to_the_engine(facts: Any, project: Project) -> None:
    host, config = facts["HostConfig"], facts["Config"]
    assert facts["State"]["Health"]["Status"] == "healthy"
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"], host["NanoCpus"]) == (
        1 << 30,
        1 << 30,
        4096,
        2 * 10**9,
    )
    assert host["CapDrop"] == ["ALL"] and not host["CapAdd"] and not host["Privileged"] and host["ReadonlyRootfs"]
    assert config["User"] == "1000:1000" and "no-new-privileges:true" in host["SecurityOpt"]
    assert host["PidMode"] == "" and host["IpcMode"] in ("private", "shareable") and not host["Devices"]
    assert host["NetworkMode"].endswith("_default") and host["NetworkMode"] != "host"
    (mount,) = facts["Mounts"]
    assert (mount["Type"], mount["Destination"]) == ("volume", "/var/lib/agenthub")
    assert not [bind for bind in host["Binds"] or () if ".sock" in bind]
    assert host["PortBindings"] == {"8700/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(project.port)}]}


def test_the_seccomp_profile_is_the_one_that_ships(facts: Any) -> None:
    (profile,) = [option for option in facts["HostConfig"]["SecurityOpt"] if option.startswith("seccomp")]
    assert json.loads(profile.partition("=")[2]) == json.loads((ROOT / "docker" / "seccomp.json").read_text())


def test_an_episode_plays_in_the_jail_inside(facts: Any, project: Project) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        project.ask("/v1/suites", token=False)
    can = project.ask("/v1/capabilities")
    assert can["isolation"] == "jail", can
    opened = project.ask(
        "/v1/episodes", {"request_id": "one", "suite": "python_basics", "task": "fibonacci-30", "count": 1}
    )
    episode = opened["episodes"][0]["id"]
    step = {"turn": 0, "action": {"text": "```python\nimport os\nprint(os.getuid(), os.listdir('/'), 6 * 7)\n```"}}
    done = project.ask(f"/v1/episodes/{episode}/step", step)
    assert "42" in done["observation"]["text"] and "agenthub" not in done["observation"]["text"], done
    done = project.ask(f"/v1/episodes/{episode}/step", {"turn": 1, "action": {"text": "\\boxed{832040}"}})
    assert done["terminated"] and done["reward"] >= 1.0, done


def test_the_profile_allows_what_a_box_may_and_what_makes_one_and_no_more() -> None:
    rows = json.loads((ROOT / "docker" / "seccomp.json").read_text())["syscalls"]
    allowed = {name for row in rows if row["action"] == "SCMP_ACT_ALLOW" for name in row["names"]}
    making = {"mount", "mount_setattr", "pivot_root", "seccomp", "sethostname", "setns", "umount2", "unshare"}
    assert set(seccomp.ALLOWED.values()) <= allowed
    assert allowed & set(seccomp.REFUSED.values()) == making | {"get_mempolicy"}
    assert not allowed & {"bpf", "io_uring_setup", "kexec_load", "perf_event_open", "ptrace", "userfaultfd", "keyctl"}


def test_the_compose_file_says_what_a_missing_token_needs(engine: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "compose.yaml", tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "AGENTHUB_TOKEN"}
    done = subprocess.run(
        [*_compose(), "config"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0 and "at least 16 characters" in done.stderr


async def test_the_hub_image_is_small(facts: Any, api: Any) -> None:
    image, base = await asyncio.gather(
        asyncio.to_thread(api.inspect_image, "agenthub/hub"), asyncio.to_thread(api.inspect_image, BASE)
    )
    assert image["Size"] - base["Size"] < 200 << 20
