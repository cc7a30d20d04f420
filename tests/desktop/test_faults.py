"""Programs on a desktop that fight it, and ends from outside: whose fault it is, and that the next one is served."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from agenthub.episodes import Episode, Workbench
from agenthub.errors import BoxLost
from agenthub.records import Call, Outcome
from agenthub.sandboxes.desktop.screens import written
from agenthub.suites.load import load_suite
from agenthub.suites.task import Task
from agenthub.wire import Action, CallIn
from tests.desktop.conftest import Open

TASKS = Path(__file__).parents[2] / "tasks"
# Waits for a file that the test writes, then does its harm.
HOSTILE = """
import os, signal, time
while not os.path.exists("go"):
    time.sleep(0.02)
{harm}
"""


def call(**arguments: Any) -> Call:
    return Call(id="1", tool="desktop", arguments=arguments)


def on_the_desktop(harm: str) -> dict[str, Any]:
    return {"do": "launch", "argv": ["python3", "-c", HOSTILE.format(harm=harm)]}


@pytest.mark.gui
async def test_a_program_that_takes_all_memory_is_nobodys_loss_but_its_own(opened: Open) -> None:
    hungry = on_the_desktop("kept = [bytearray(b'x' * (1 << 24)) for _ in range(1 << 12)]")
    session, neighbour = await opened(reset=[hungry]), await opened()
    await session.write_file("go", b"")
    with contextlib.suppress(BoxLost):
        for _ in range(6):
            await session.call(call(action="wait", seconds=0.5), timeout_s=30)
    assert not (await neighbour.call(call(action="type", text="still"), timeout_s=60)).failed


def displays_in_use() -> list[int]:
    """Displays in whose box an editor runs; those that were started ahead have none."""
    rows = [(it.info["name"], it.pid) for it in psutil.process_iter(["name"])]
    boxes = {_box(pid) for name, pid in rows if name == "mousepad"}
    return [pid for name, pid in rows if name == "Xvfb" and _box(pid) in boxes]


def _box(pid: int) -> str:
    return Path(f"/proc/{pid}/ns/pid").readlink().name


def desktop_task() -> Task:
    return next(it for it in load_suite(TASKS / "desktop.yaml").tasks if it.tools[0].uses == "desktop")


async def killed_outside(bench: Workbench) -> Episode:
    """An episode whose display is killed from outside between two turns."""
    episode = Episode(desktop_task(), bench, id="e", group="g", member=0)
    await episode.open()
    wait = CallIn(tool="desktop", arguments={"action": "wait", "seconds": 0.1})
    await episode.step(Action(calls=[wait]), timeout_s=None, generation=None)
    (display,) = displays_in_use()
    os.kill(display, signal.SIGKILL)
    await episode.step(Action(calls=[wait]), timeout_s=None, generation=None)
    await episode.cancel()
    return episode


@pytest.mark.gui
async def test_a_display_that_ends_never_becomes_a_reward_of_our_fault(programs: None, bench: Workbench) -> None:
    """A program on the desktop could have done it as well: it counts as the policy's, and is told as such."""
    episode = await killed_outside(bench)
    assert episode.trajectory is not None
    assert episode.trajectory.outcome is Outcome.MODEL_FAULT
    again = Episode(desktop_task(), bench, id="f", group="g", member=1)
    await again.open()
    await again.cancel()


@pytest.mark.parametrize(
    "told",
    [
        {"windows": 3},
        {"windows": [3]},
        {"windows": [{}]},
        {"windows": [{"box": [1, 2, 3], "title": "", "active": True}]},
        {"windows": [{"box": ["a", 2, 3, 4], "title": "", "active": True}]},
        {"windows": [{"box": [1e400, 2, 3, 4], "title": "", "active": True}]},
        {"windows": {"a": 1}},
        {"windows": [{"box": [10**4200, 2, 3, 4], "title": "", "active": True}]},
        {"windows": [], "pointer": None},
        {"windows": [], "pointer": [1]},
        {"windows": [], "pointer": "xy"},
        {"windows": []},
    ],
)
def test_a_forged_answer_is_the_policys_loss_and_no_fault_of_ours(told: dict[str, Any]) -> None:
    with pytest.raises(BoxLost, match="wrote to the sandbox"):
        written(told, ("windows", "pointer"))


def test_windows_cannot_fill_the_context() -> None:
    told = {"windows": [{"box": [1, 2, 3, 4], "title": "a", "active": False}] * 3000}
    (part,) = written(told, ("windows",))
    assert part.text.count("\n") == 51  # type: ignore[union-attr]


def test_a_title_cannot_fill_the_context_or_end_its_line() -> None:
    told = {"windows": [{"box": [1, 2, 3, 4], "title": "a\n" * 10_000, "active": False}]}
    (part,) = written(told, ("windows",))
    assert part.text.count("\n") == 2 and len(part.text) < 2000  # type: ignore[union-attr]
