"""Experts: their tokens are exact, another tokenizer's are refused, and they stand beside what the policy plays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenthub.client import Hub
from agenthub.codec import encode
from agenthub.errors import ConfigError, UserError
from agenthub.policies.bytes import byte_tokenizer
from agenthub.policies.embedded import TINY, load_model
from agenthub.records import Trajectory, floats, ints
from agenthub.renderer import Renderer
from agenthub.renderers import make_renderer
from agenthub.rollout import CollectStats, Play
from agenthub.trainers.batch import build_batch
from agenthub.trainers.experts.beside import Experts, WithExperts, open_library
from agenthub.trainers.experts.config import ExpertsConfig
from agenthub.trainers.experts.library import Followed, Library, Script, Vocabulary, as_expert, read_library, read_texts
from agenthub.trainers.experts.record import record, scripts_for
from agenthub.trainers.experts.scripted import ScriptPlayer, Writer
from agenthub.trainers.filters import NoFilter
from agenthub.trainers.metrics import rollout_metrics
from agenthub.trainers.types import EXPERT
from tests.served import served
from tests.trainers.fakes import ANSWER, CODE, trajectory

SUITE = """
schema: agenthub.suite/1
suite: {name: sums, version: "1", splits: {train: {}, eval: {}}}
defaults:
  prompt: {system: ""}
  tools: [{uses: calculator, config: {busy: 1}}]
  limits: {max_turns: 4, max_tokens: 256}
  verifier: {checks: [{uses: numeric}]}
sources:
  - {kind: generator, uses: arithmetic, config: {part: train, calls: 2}, seed: 1, count: 4, split: train, prefix: t}
  - {kind: generator, uses: arithmetic, config: {part: eval, calls: 2}, seed: 2, count: 2, split: eval, prefix: e}
"""
TASKS = [f"t0000{number}" for number in range(4)]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "sums.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="module")
def url(suite: Path) -> Iterator[str]:
    with served(suite, suite.parent) as address:
        yield address


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_model(TINY)[1]


def renderer_of(tokenizer: Any) -> Renderer:
    return make_renderer("plain", tokenizer, "fence_strict")


def vocabulary_of(tokenizer: Any) -> Vocabulary:
    return Vocabulary(
        size=len(tokenizer),
        text=lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=False)),
        stop_ids=renderer_of(tokenizer).stop_ids,
    )


def config(**changes: Any) -> ExpertsConfig:
    return ExpertsConfig(**changes)


async def recorded(url: str, suite: Path, tokenizer: Any, out: Path) -> Path:
    """The oracles of the split `train`, written to a file."""
    library = open_library(
        config(), suite="sums", train=TASKS, run=out.parent, tasks=[suite], vocabulary=vocabulary_of(tokenizer)
    )
    scripts = [row for rows in library.rows.values() for row in rows if isinstance(row, Script)]
    async with Hub(url) as hub:
        done = await record(ScriptPlayer(hub, tokenizer, renderer_of(tokenizer), native=False), scripts, out)
    assert (done.kept, done.lost) == (4, 0)
    return out


async def test_oracles_are_recorded_with_the_very_tokens_of_their_texts(
    url: str, suite: Path, tokenizer: Any, tmp_path: Path
) -> None:
    out = await recorded(url, suite, tokenizer, tmp_path / "experts.jsonl")
    library = read_library(out, vocabulary_of(tokenizer))
    assert library.tasks() == {f"sums/{task}" for task in TASKS}
    (expert,) = library.rows["sums/t00000"]
    assert isinstance(expert, Trajectory)
    batch = build_batch([expert])
    said = tokenizer.decode(batch.ids[batch.action_mask].tolist(), skip_special_tokens=False)
    assert said == "".join(turn.text for turn in expert.turns), "the mask is on the expert's words and on nothing else"
    shown = tokenizer.decode(batch.ids[~batch.action_mask].tolist(), skip_special_tokens=False)
    assert shown.count("<|tool|>") == 2 and "busy" in shown
    assert batch.samples == 1, "each prompt extends the one before by its ids"


async def test_texts_without_tokens_are_played_for_them_and_give_the_same_ones(
    url: str, suite: Path, tokenizer: Any, tmp_path: Path
) -> None:
    out = await recorded(url, suite, tokenizer, tmp_path / "experts.jsonl")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    for row in rows:
        for turn in row["turns"]:
            turn["generation"] = None
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert all(
        isinstance(row, Script) for rows in read_library(bare, vocabulary_of(tokenizer)).rows.values() for row in rows
    )
    scripts = scripts_for("sums", [f"sums/{task}" for task in TASKS], {}, bare)
    async with Hub(url) as hub:
        player = ScriptPlayer(hub, tokenizer, renderer_of(tokenizer), native=False)
        await record(player, scripts, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_text() == out.read_text()


async def test_a_file_of_another_tokenizer_is_refused_by_line_and_its_texts_can_be_played_again(
    url: str, suite: Path, tokenizer: Any, tmp_path: Path
) -> None:
    out = await recorded(url, suite, tokenizer, tmp_path / "experts.jsonl")
    own = vocabulary_of(tokenizer)
    other = replace(own, text=lambda ids: own.text([number ^ 1 for number in ids]))
    with pytest.raises(
        UserError, match=r"experts.jsonl:1: turn 0 was recorded with another tokenizer: .*agenthub record"
    ):
        read_library(out, other)
    assert len(read_texts(out)) == 4


async def test_scripts_that_lose_are_counted_and_not_kept(url: str, tokenizer: Any, tmp_path: Path) -> None:
    wrong = [Script(task="sums/t00000", texts=("\\boxed{1}",)), Script(task="sums/t00001", texts=("Hm.",))]
    async with Hub(url) as hub:
        player = ScriptPlayer(hub, tokenizer, renderer_of(tokenizer), native=False)
        with pytest.raises(UserError, match=r"none of the 2 scripts won; the first: sums/t00000: answered"):
            await record(player, wrong, tmp_path / "none.jsonl")


@given(st.text(max_size=60))
def test_a_turn_is_written_as_text_and_never_as_a_control_token(text: str) -> None:
    tokenizer = byte_tokenizer()
    renderer = renderer_of(tokenizer)
    ids = Writer(tokenizer, renderer, native=False).ids(text)
    body = ids[:-1] if ids and ids[-1] in renderer.stop_ids else ids
    assert not renderer.stop_ids & set(body)
    assert tokenizer.decode(body, skip_special_tokens=False) == text


class Fresh:
    """A collector of two members a group."""

    def __init__(self) -> None:
        self.stats = CollectStats(tokens=5)

    async def collect(self, plays: Sequence[Play], *, seed: int) -> list[Trajectory]:
        return [
            replace(trajectory((CODE, ANSWER), group=play.group, member=member), task=f"{play.suite}/{play.task}")
            for play in plays
            for member in range(play.count)
        ]


def plays(count: int = 2) -> list[Play]:
    return [Play(suite="sums", task=task, count=count, group=f"u1/{place}") for place, task in enumerate(TASKS[:2])]


async def test_experts_follow_the_members_of_their_own_task(
    url: str, suite: Path, tokenizer: Any, tmp_path: Path
) -> None:
    settings = config()
    library = open_library(
        settings, suite="sums", train=TASKS, run=tmp_path, tasks=[suite], vocabulary=vocabulary_of(tokenizer)
    )
    async with Hub(url) as hub:
        player = ScriptPlayer(hub, tokenizer, renderer_of(tokenizer), native=False)
        found = await WithExperts(Fresh(), Experts(config=settings, library=library, player=player)).collect(
            plays(), seed=3
        )
    assert [(one.group, one.member) for one in found] == [(f"u1/{g}", m) for g in range(2) for m in range(3)]
    experts = [one for one in found if one.member == 2]
    assert [one.task for one in experts] == ["sums/t00000", "sums/t00001"]
    for one in experts:
        for turn in one.turns:
            assert turn.generation is not None
            assert (turn.generation.policy, turn.generation.versions) == (EXPERT, ((0, -1),))
    batch = build_batch(found)
    row = rollout_metrics(found, batch, {})
    assert row["experts"] == {"trajectories": 2, "tokens": int(batch.tokens_by(EXPERT).sum())}
    assert row["success"] == 0.0, "experts tell nothing of the policy"
    assert row["tokens"] == int((batch.action_mask & ~batch.tokens_by(EXPERT)).sum())
    assert batch.with_filter(NoFilter().apply(batch)).peers.tolist() == [2] * 6, "they do not count in their group"


async def test_where_the_experts_alone_train_nothing_is_played() -> None:
    settings = config(only=True, source="somewhere.jsonl")
    library = Library()
    library.add(replace(trajectory((CODE, ANSWER), reward=1.0), task="sums/t00000"))
    experts = Experts(config=settings, library=library, player=NoPlayer())
    assert experts.known("sums", TASKS) == ["t00000"], "only tasks with an expert are drawn"
    around = WithExperts(Fresh(), experts)
    found = await around.collect(plays()[:1], seed=0)
    assert [one.member for one in found] == [0] and around.stats.tokens == 0
    row = rollout_metrics(found, build_batch(found), {})
    assert row["success"] is None and row["void_rate"] is None and row["kept"] == 0
    with pytest.raises(UserError, match="no expert solves its task"):
        await around.collect(plays()[1:], seed=0)
    with pytest.raises(UserError, match="no task of suite 'sums' that is trained on has an expert"):
        experts.known("sums", TASKS[1:])


class NoPlayer:
    """Has no script to play."""

    stats = CollectStats()

    async def play(self, scripts: Mapping[str, Script]) -> dict[str, Trajectory]:
        assert not scripts
        return {}


def written(path: Path, rows: Sequence[Trajectory]) -> Path:
    with path.open("a") as file:
        file.writelines(json.dumps(encode(row)) + "\n" for row in rows)
    return path


def test_what_a_run_has_solved_is_followed_as_it_grows(tmp_path: Path) -> None:
    path = written(
        tmp_path / "t.jsonl", [trajectory((CODE, ANSWER), reward=r, member=m) for m, r in enumerate([1.0, 0.0])]
    )
    library = Followed(path, capacity=2, only_solved=True)
    library.refresh()
    assert [one.member for one in library.pick(None, 5, 0) if isinstance(one, Trajectory)] == [0]
    with path.open("a") as file:
        file.write('{"task": "unfini')
    library.refresh()
    path.write_bytes(path.read_bytes().removesuffix(b'{"task": "unfini'))
    more = [trajectory((CODE, ANSWER), reward=1.0, member=m) for m in range(5, 8)]
    written(path, [as_expert(more[0], "g", 9), *more[1:]])
    library.refresh()
    found = {one.member for one in library.pick(None, 5, 0) if isinstance(one, Trajectory)}
    assert found == {6, 7}, "the newest two; an expert's own trajectory is no success of the run"


def test_a_pick_is_the_same_for_the_same_seed_and_never_the_same_expert_twice() -> None:
    library = Library()
    for member in range(6):
        library.add(trajectory((CODE, ANSWER), member=member))
    first, again = library.pick(None, 4, 11), library.pick(None, 4, 11)
    assert first == again and len({one.member for one in first if isinstance(one, Trajectory)}) == 4
    assert library.pick("other/task", 4, 11) == []


def test_lines_that_are_no_experts_are_counted_or_named(tmp_path: Path) -> None:
    vocabulary = vocabulary_of(byte_tokenizer())
    path = written(tmp_path / "t.jsonl", [trajectory((CODE, ANSWER), reward=0.0)])
    with pytest.raises(UserError, match="has no expert for this run: 1 not solved"):
        read_library(path, vocabulary)
    solved = written(tmp_path / "s.jsonl", [trajectory((CODE, ANSWER), reward=1.0)])
    with pytest.raises(UserError, match="1 of tasks that this run does not train on"):
        read_library(solved, vocabulary, tasks={"sums/t00000"})
    with path.open("a") as file:
        file.write("{}\n")
    with pytest.raises(ConfigError, match=r"t.jsonl:2: not a trajectory"):
        read_library(path, vocabulary)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_library(tmp_path / "missing.jsonl", vocabulary)


def test_a_source_that_can_give_nothing_is_refused(tmp_path: Path, suite: Path) -> None:
    vocabulary = vocabulary_of(byte_tokenizer())

    def opened(settings: ExpertsConfig, name: str = "sums", folder: Path = suite) -> Library:
        return open_library(settings, suite=name, train=TASKS, run=tmp_path, tasks=[folder], vocabulary=vocabulary)

    with pytest.raises(UserError, match="would never play anything"):
        opened(config(source="own", only=True))
    with pytest.raises(UserError, match="sum"):
        opened(config(), name="sum")
    bare = shutil.copy(suite, tmp_path / "bare.yaml")
    Path(bare).write_text(
        SUITE.split("sources:")[0] + 'tasks: [{id: t00000, prompt: {user: "1+1"}, target: {answer: 2}}]\n'
    )
    with pytest.raises(UserError, match="no task of suite 'sums' has a solution"):
        opened(config(), folder=Path(bare))


def test_the_last_token_may_go_on_after_the_action_and_no_other() -> None:
    vocabulary = Vocabulary(
        size=10, text=lambda ids: "".join(("a", "b", "}", "}\n", "?")[i] for i in ids), stop_ids=frozenset({9})
    )
    one = trajectory((CODE, ANSWER), reward=1.0).turns[0].generation
    assert one is not None

    def problem(ids: Sequence[int], said: str) -> str | None:
        row = replace(one, prompt_ids=ints([0]), ids=ints(ids), logprobs=floats([-0.5] * len(ids)), versions=((0, 0),))
        return vocabulary.problem(row, said)

    assert problem([0, 1, 2, 9], "ab}") is None
    assert problem([0, 1, 3], "ab}") is None and problem([0, 1, 3], "ab}\n") is None
    assert "was recorded" in str(problem([0, 1, 2, 4], "ab}"))
    assert "was recorded" in str(problem([0, 1, 3], "ab"))
    assert "was recorded" in str(problem([0, 1, 4], "ab}"))
    assert "this tokenizer has 10" in str(problem([0, 17], "ab"))
