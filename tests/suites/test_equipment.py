"""A suite whose programs this machine has not is not offered, by hub or command, and what is missing is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agenthub.cli.tasks import app
from agenthub.errors import WireError
from agenthub.sandboxes.browser import sandbox as browser
from agenthub.sandboxes.desktop import sandbox as desktop
from agenthub.sandboxes.lean import sandbox as lean
from agenthub.server.catalog import Catalog
from agenthub.suites.equipment import lacking
from agenthub.suites.load import load_suites
from agenthub.suites.task import Suite, ToolUse

TASKS = Path(__file__).parents[2] / "tasks"


@pytest.fixture
def suite() -> Suite:
    return load_suites([TASKS / "echo.yaml"])["echo"]


@pytest.fixture
def no_lean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "missing", lambda: "there is no Lean on this machine")


def using(suite: Suite, *kinds: str) -> Suite:
    """The suite with a task for each kind of sandbox."""
    (task,) = suite.tasks
    return replace(suite, tasks=tuple(replace(task, id=kind, tools=(ToolUse(name="t", uses=kind),)) for kind in kinds))


@pytest.mark.usefixtures("no_lean")
def test_a_suite_lacks_something_where_none_of_its_tasks_can_be_played(suite: Suite) -> None:
    assert lacking(using(suite, "lean")) == "there is no Lean on this machine"
    assert lacking(using(suite, "lean", "echo")) == ""
    assert lacking(suite) == ""
    assert lacking(replace(suite, tasks=())) == ""


def test_each_kind_says_what_it_needs(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTHUB_CHROMIUM", "/no/such/program")
    monkeypatch.setattr(desktop, "missing", lambda: {"Xvfb": "xvfb", "openbox": "openbox"})
    assert "/no/such/program" in lacking(using(suite, "browser"))
    assert lacking(using(suite, "desktop")).endswith("apt-get install xvfb openbox")
    assert browser.BrowserSandbox.lacking() in lacking(using(suite, "browser", "desktop"))


@pytest.mark.usefixtures("no_lean")
async def test_the_hub_names_it_among_those_that_it_cannot_play(suite: Suite) -> None:
    catalog = Catalog({"proofs": using(suite, "lean"), "echo": suite})
    listed = await catalog.list()
    assert [row["name"] for row in listed["suites"]] == ["echo"]
    assert "there is no Lean" in listed["unavailable"]["proofs"]
    with pytest.raises(WireError, match="cannot be played here: there is no Lean") as refused:
        await catalog.task("proofs", "lean")
    assert (refused.value.status, refused.value.code) == (404, "suite_unavailable")


@pytest.mark.usefixtures("no_lean")
def test_the_list_of_the_command_says_so() -> None:
    done = CliRunner().invoke(app, ["list", "--tasks", str(TASKS / "lean_core.yaml")])
    assert done.exit_code == 0, done.output
    assert "lean_core: not available here: there is no Lean" in " ".join(done.output.split())
