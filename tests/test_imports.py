"""Who may import whom: the table of the design, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "agenthub"
PROTOCOLS = {"sandbox", "isolation", "policy", "renderer"}
BASE = {"errors", "records", "codec", "images"}
CORE = (
    BASE
    | PROTOCOLS
    | {"registry", "config", "wire"}
    | {
        "suites",
        "generators",
        "rewards",
        "renderers",
        "policies",
        "blobs",
        "episodes",
        "log",
        "log_rows",
        "rollout",
        "client",
        "replay",
    }
)


def allowed(module: str) -> set[str] | None:
    """First names under `agenthub` that a module may import; None where it may import everything."""
    parts = module.split(".")
    top = parts[0]
    if top in ("errors", "records"):
        return BASE
    if top in ("codec", "images"):
        return BASE
    if top in PROTOCOLS or top in ("registry", "config", "wire"):
        return BASE | PROTOCOLS | {"registry", "config"}
    if top == "sandboxes":
        shared = BASE | PROTOCOLS | {"registry", "config"}
        own = parts[1] if len(parts) > 1 else ""
        tools = {"sandboxes.isolation", "sandboxes.pool", "sandboxes.fileless"}
        return shared | (tools if own in ("isolation", "pool", "") else tools | {f"sandboxes.{own}"})
    if top == "client":
        return {"records", "errors", "codec", "wire", "client"}
    if top == "trainers":
        shared = BASE | {"registry", "config", "trainers", "policy", "renderer"}
        loops = parts[-1] in ("loop", "flow", "run", "serving", "evaluate", "hub", "refill", "canaries")
        plays = loops or parts[1:2] in (["experts"], ["rollouts"])
        return shared | ({"rollout", "suites", "client", "renderers", "policies"} if plays else set())
    if top in ("server", "gym"):
        return CORE | {"server", "trainers"} if top == "server" else CORE
    if top in ("cli", "__main__", ""):
        return None
    return CORE


def modules() -> Iterator[tuple[str, Path]]:
    for path in _walk(ROOT):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield name.removesuffix("__init__").rstrip("."), path


def _walk(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _walk(entry)
        elif entry.suffix == ".py":
            yield entry


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_module_imports_only_what_its_row_allows(module: str, path: Path) -> None:
    may = allowed(module)
    if may is None:
        return
    for name in imported(path):
        if not name.startswith("agenthub."):
            continue
        inner = name.removeprefix("agenthub.").split(".")
        assert inner[0] in may or ".".join(inner[:2]) in may or inner[0] == "__version__", f"{module} imports {name}"


def test_importing_the_core_loads_nothing_heavy() -> None:
    code = (
        "import sys, agenthub, agenthub.records, agenthub.client, agenthub.episodes, agenthub.cli;"
        "print([m for m in ('torch', 'transformers', 'vllm', 'playwright', 'docker') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["sandboxes", "trainers"])
def test_a_folder_is_not_imported_under_its_short_name(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], capture_output=True, text=True, timeout=60, cwd=ROOT.parent
    )
    assert done.returncode != 0
    assert f"import agenthub.{name}" in done.stderr


def test_what_runs_inside_a_box_uses_the_standard_library_only() -> None:
    """The guest and all that it imports of ours; the mold that becomes a box is held to the same."""
    reached, todo = set[str](), ["sandboxes.python.guest", "sandboxes.isolation.mold"]
    known = dict(modules())
    while todo:
        module = todo.pop()
        if module in reached or module not in known:
            continue
        reached.add(module)
        for name in imported(known[module]):
            if name.startswith("agenthub."):
                inner = name.removeprefix("agenthub.")
                todo += [inner, inner.rpartition(".")[0]]
            else:
                assert name.split(".")[0] in sys.stdlib_module_names, f"{module} imports {name}"
    assert "sandboxes.python.cell" in reached
