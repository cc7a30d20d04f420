"""MiniWoB++: every page starts and ends, oracles win by what they see, and a no-op wins nothing."""

from __future__ import annotations

import pytest

from agenthub.generators.miniwob import pages
from agenthub.sandboxes.browser import miniwob as contract
from agenthub.sandboxes.browser.sandbox import BrowserSandbox
from tests.browser.harness import act, miniwob, solve
from tests.browser.oracles import ORACLES

pytestmark = [pytest.mark.gui, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
EVERY = sorted(pages())


async def test_the_suite_knows_every_page_of_the_package(chromium: str) -> None:
    assert contract.pages() == EVERY
    assert len(EVERY) == 130


async def test_every_page_starts_with_a_goal_and_ends_unsolved_for_a_no_op_that_leaves(
    factory: BrowserSandbox,
) -> None:
    for name in EVERY:
        session = await factory.start(miniwob(name, seed=3))
        assert session.opening.startswith("goal:"), name
        shown = await act(session, "noop()")
        assert not shown.failed and not session.over, name
        assert (await session.facts())["score"] is None, name
        await act(session, "goto('about:blank')")
        assert session.over, name
        assert (await session.facts())["score"] == 0.0, name
        await session.close()


@pytest.mark.parametrize("first", range(0, len(EVERY), 26))
async def test_the_same_seed_shows_the_same_whatever_was_played_before(factory: BrowserSandbox, first: int) -> None:
    for name in EVERY[first : first + 26]:
        seen = []
        for seed in (2, 7, 2):
            session = await factory.start(miniwob(name, seed))
            seen.append(session.opening)
            await act(session, f"mouse_click({40 + seed * 9}, {90 + seed * 13})\nkeyboard_type('a')")
            await session.close()
        assert seen[0] == seen[2], name


async def _unsolved(factory: BrowserSandbox, names: list[str], seeds: range) -> list[str]:
    failed = []
    for name in names:
        for seed in seeds:
            score, told = await solve(factory, name, seed)
            if score is None or score < 1.0:
                failed.append(told)
    return failed


async def test_oracles_solve_pages_by_what_is_shown_and_input_events_alone(factory: BrowserSandbox) -> None:
    assert len(ORACLES) >= 60
    assert await _unsolved(factory, sorted(ORACLES), range(1)) == []


@pytest.mark.slow
async def test_oracles_solve_ten_seeds_of_sixty_pages_or_more(factory: BrowserSandbox) -> None:
    solved = [name for name in sorted(ORACLES) if not await _unsolved(factory, [name], range(10))]
    assert len(solved) >= 60, sorted(set(ORACLES) - set(solved))
