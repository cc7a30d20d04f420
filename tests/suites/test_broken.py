"""Suites that are broken on purpose: lint fails each of them, and names the hole, its task and the technique."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from agenthub.cli.tasks import app
from agenthub.episodes import Workbench
from agenthub.suites.lint import Plan, Report, examine, techniques
from agenthub.suites.load import load_suite
from tests.sandboxes.boxes import need_jail

in_one_loop = pytest.mark.asyncio(loop_scope="module")
FOLDER = Path(__file__).parent / "broken"
EXPECTED: dict[str, list[tuple[str, str, str]]] = {
    "answer_in_a_file": [("checksum", "read_box", "the target is in tests/expected.txt")],
    "answer_in_the_prompt": [("note", "read_prompt", "'brindled-heron-52'")],
    "constant_answer": [
        ("any-number", "constant_answer", "the answers '0', '1', '-1' win"),
        ("first", "constant_answer", "always answering 'stable' wins 4 of the suite's 5 tasks"),
    ],
    "everything_at_once": [("anywhere", "all_answers", "says everything at once wins")],
    "nan_passes": [("mean", "not_a_number", "a nan or an infinity in place of a value wins")],
    "not_to_be_won": [
        ("contradiction", "oracle", "the oracle does not win (reward 0; blue: the answer does not match)"),
        ("unsteady", "oracle", "is not deterministic though it says so"),
        ("unloadable", "oracle", "the tests do not load: ModuleNotFoundError"),
    ],
    "trusts_the_exit_status": [
        ("self-test", "constant_value", "a function that always returns the same wins"),
        ("self-test", "exit_zero", "a program that only ends well wins"),
    ],
    "visible_tests": [("roman", "hardcode_visible", "a table of the examples that the prompt shows wins")],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[Workbench]:
    need_jail()
    made = Workbench()
    yield made
    await made.close()


async def linted(path: Path, bench: Workbench, episodes: int = 2) -> Report:
    return await examine(load_suite(path).tasks, bench, Plan(episodes=episodes))


def test_every_broken_suite_is_expected() -> None:
    assert sorted(EXPECTED) == sorted(path.stem for path in FOLDER.iterdir())


@in_one_loop
@pytest.mark.parametrize("name", EXPECTED)
async def test_lint_names_the_hole(bench: Workbench, name: str) -> None:
    found = (await linted(FOLDER / f"{name}.yaml", bench, 4)).holes
    assert [(hole.task.id, hole.technique) for hole in found] == [row[:2] for row in EXPECTED[name]]
    for hole, (_, _, told) in zip(found, EXPECTED[name], strict=True):
        assert told in hole.what
        assert hole.task.place.startswith(str(FOLDER / name))


def test_the_command_prints_a_table_and_the_holes_and_fails() -> None:
    need_jail()
    done = CliRunner().invoke(app, ["lint", str(FOLDER / "nan_passes.yaml"), "--quick", "--seed", "5"])
    assert done.exit_code == 1
    assert (
        f"{FOLDER / 'nan_passes.yaml'}:5: nan_passes/mean: a nan or an infinity in place of a value wins" in done.output
    )
    rows = {line.split()[0]: line.split()[1:4] for line in done.output.splitlines() if line.split()[:1]}
    assert int(rows["not_a_number"][2]) == 1 and rows["exit_zero"][2] == "0"
    assert "nan_passes: 1 tasks, 1 with a hole" in done.output


@in_one_loop
async def test_a_technique_that_the_author_accepts_is_not_played(bench: Workbench, tmp_path: Path) -> None:
    text = (FOLDER / "visible_tests.yaml").read_text(encoding="utf-8")
    path = tmp_path / "s.yaml"
    path.write_text(
        text.replace("tasks:", "defaults: {x: {lint: {allow: [hardcode_visible]}}}\ntasks:"), encoding="utf-8"
    )
    report = await linted(path, bench)
    assert report.holes == ()
    assert "hardcode_visible" not in {tally.technique for tally in report.tallies}


@in_one_loop
@pytest.mark.parametrize("place", ["data/notes.txt", "answer.json"])
async def test_a_target_in_a_file_is_a_hole_but_where_the_oracle_reads_it(
    bench: Workbench, tmp_path: Path, place: str
) -> None:
    oracle = "```python\\nprint(open('{}').read())\\n```"
    task = (
        'schema: agenthub.suite/1\nsuite: {name: s, version: "1"}\ntasks:\n'
        f"- {{id: a, prompt: {{user: What does the note say?}}, tools: [{{uses: python}}], target: {{answer: 77123}}, "
        f"files: [{{path: {place}, content: 'It is 77123, they say.'}}], "
        'verifier: {checks: [{uses: numeric}]}, solution: {turns: ["ORACLE", "\\\\boxed{77123}"]}}\n'
    )
    path = tmp_path / "s.yaml"
    path.write_text(task.replace("ORACLE", oracle.format(place)), encoding="utf-8")
    assert (await linted(path, bench)).holes == ()
    path.write_text(task.replace("ORACLE", oracle.format("/etc/hostname").replace("open", "str")), encoding="utf-8")
    (hole,) = (await linted(path, bench)).holes
    assert hole.technique == "read_box" and f"the target is in {place}" in hole.what


def test_every_technique_says_what_it_tries() -> None:
    assert all(does and not does.endswith(".") for does in techniques().values())
    assert {"random", "read_box", "constant_answer", "exit_zero", "patch_comparison"} <= set(techniques())
