"""Suites from files: what comes out, and how a bad file is told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from agenthub.errors import ConfigError, UnknownName
from agenthub.records import Message
from agenthub.sandbox import SandboxSpec
from agenthub.suites.load import default_folder, find_task, load_suite, load_suites, open_task
from agenthub.suites.task import Suite, TaskLimits

HEAD = 'schema: agenthub.suite/1\nsuite: {name: s, version: "1"}\n'
TASK = "tasks:\n- id: a\n  prompt: {user: Hi}\n  target: {answer: 1}\n  verifier: {checks: [{uses: numeric}]}\n"


def write(folder: Path, text: str, name: str = "s.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str) -> Suite:
    return load_suite(write(folder, text))


def error(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return str(caught.value).replace(f"{folder}/", "")


def test_a_small_suite(tmp_path: Path) -> None:
    suite = load(tmp_path, HEAD + TASK)
    assert (suite.name, suite.version, suite.splits, len(suite.tasks)) == ("s", "1", ("train",), 1)
    task = suite.tasks[0]
    assert task.key == "s/a"
    assert task.protocol == "boxed"
    assert task.messages == (
        Message(role="system", content=r"Give your final answer as \boxed{...}."),
        Message(role="user", content="Hi"),
    )
    assert task.target == 1
    assert task.place == f"{tmp_path}/s.yaml:4"
    assert task.limits == TaskLimits()


def test_a_task_holds_all_that_was_written(tmp_path: Path) -> None:
    task = load(
        tmp_path,
        HEAD
        + """
tasks:
- id: a
  split: eval
  prompt:
    system: Be brief.
    messages: [{role: user, content: Hi}, {role: assistant, content: Hello}, {role: user, content: Go}]
  protocol: fence_simpletir
  tools:
  - {uses: python, name: run, config: {seed: 3}}
  target: {answers: [1, "2"]}
  limits: {max_turns: 3, max_tokens: 100, turn_seconds: 2, episode_seconds: 9, setup_seconds: 4, verify_seconds: 5}
  on_no_call: remind
  turn_checks: [{uses: call_ok, name: ran, reward: 0.25, first_only: true}]
  verifier:
    combine: min
    scale: 2
    checks: [{id: c, uses: exact, args: {case: false}, weight: 3, required: true}]
  solution: {turns: ['\\boxed{2}']}
  sandbox:
    isolation: jail
    require: [kernel]
    image: python
    resources: {cpus: 0.5, memory: 1G, disk: 8M, pids: 9, inodes: 99, nofile: 77, output: 64K}
    network: {mode: none}
  files: [{path: d/a.txt, content: "x"}, {path: b.bin, b64: AAH/}]
  deterministic: false
  metadata: {difficulty: 3}
  x: {vendor: {Key: [1, null, 1.0, "1"]}}
  origin: {format: other, raw: {a: {b: c}}}
""",
    ).tasks[0]
    assert [message.content for message in task.messages] == ["Be brief.", "Hi", "Hello", "Go"]
    assert task.target == (1, "2")
    assert task.limits == TaskLimits(
        max_turns=3, max_tokens=100, turn_seconds=2, episode_seconds=9, setup_seconds=4, verify_seconds=5
    )
    (tool,) = task.tools
    assert (tool.name, tool.uses, tool.spec.params, tool.spec.image) == ("run", "python", {"seed": 3}, "python")
    limits = tool.spec.limits
    assert (limits.cpus, limits.memory_mb, limits.disk_mb, limits.pids) == (0.5, 1024, 8, 9)
    assert (limits.files, limits.open_files, limits.output_bytes) == (99, 77, 65536)
    assert dict(tool.spec.files) == {"d/a.txt": b"x", "b.bin": b"\x00\x01\xff"}
    assert (task.verifier.combine, task.verifier.scale, task.verifier.checks[0].weight) == ("min", 2.0, 3.0)
    assert task.verifier.checks[0].required
    assert task.turn_checks[0].first_only
    assert (task.split, task.on_no_call, task.deterministic, task.require) == ("eval", "remind", False, ("kernel",))
    assert task.x == {"vendor": {"Key": [1, None, 1.0, "1"]}}
    assert task.origin == {"format": "other", "raw": {"a": {"b": "c"}}}
    assert task.solution == (r"\boxed{2}",)


def test_what_a_client_sees_holds_nothing_hidden(tmp_path: Path) -> None:
    text = (
        HEAD
        + TASK.replace("answer: 1}", "answer: 123454321}").replace("Hi", "Hello")
        + ("  solution: {turns: ['\\boxed{123454321}']}\n  x: {answer: 123454321}\n")
    )
    assert "123454321" not in json.dumps(load(tmp_path, text).tasks[0].public())


def test_defaults_lie_under_every_task_and_mappings_are_merged(tmp_path: Path) -> None:
    text = (
        HEAD
        + """
defaults:
  limits: {max_turns: 2, turn_seconds: 3}
  metadata: {source: us}
  prompt: {system: ""}
  verifier: {checks: [{uses: numeric}]}
tasks:
- {id: a, prompt: {user: Hi}, target: {answer: 1}, limits: {turn_seconds: 4}, metadata: {kind: k}}
"""
    )
    task = load(tmp_path, text).tasks[0]
    assert (task.limits.max_turns, task.limits.turn_seconds) == (2, 4)
    assert task.metadata == {"source": "us", "kind": "k"}
    assert [message.role for message in task.messages] == ["user"]


def test_memory_is_set_aside_and_a_lost_box_restored_where_a_task_says_so(tmp_path: Path) -> None:
    tools = "  tools: [{uses: python}]\n"
    sandbox = "  sandbox: {resources: {request: 64M, memory: 1G}, state: {on_lost: restore}}\n"
    task = load(tmp_path, HEAD + TASK + tools + sandbox).tasks[0]
    assert (task.tools[0].spec.request_mb, task.on_lost, task.max_restores) == (64, "restore", 3)
    assert task.tools[0].spec.isolation == ""
    plain = load(tmp_path, HEAD + TASK + tools).tasks[0]
    assert (plain.tools[0].spec.request_mb, plain.on_lost) == (SandboxSpec().request_mb, "end")
    low = "  sandbox: {resources: {request: 64M, memory: 32M}}\n"
    assert "resources.request 64M is above memory 32M" in error(tmp_path, HEAD + TASK + tools + low)


def test_a_short_episode_has_short_turns(tmp_path: Path) -> None:
    task = load(tmp_path, HEAD + TASK + "  limits: {episode_seconds: 4}\n").tasks[0]
    assert task.limits.turn_seconds == 4


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("limts: {}", "tasks[0] has no key 'limts'; did you mean 'limits'?"),
        ("limits: {max_turn: 2}", "tasks[0].limits has no key 'max_turn'; did you mean 'max_turns'?"),
        ("limits: {max_turns: 0}", "tasks[0].limits.max_turns is 0; expected greater than or equal to 1"),
        ("limits: {max_turns: '3'}", "tasks[0].limits.max_turns is '3'; expected a valid integer"),
        ("limits: {max_turns: true}", "tasks[0].limits.max_turns is True; expected a valid integer"),
        ("limits: {turn_seconds: .inf}", "tasks[0].limits.turn_seconds is inf"),
        (
            "limits: {turn_seconds: 9, episode_seconds: 3}",
            "tasks[0].limits: turn_seconds 9 is more than episode_seconds 3",
        ),
        ("limits: {max_turns: 9, max_tokens: 3}", "tasks[0].limits: max_turns 9 is more than max_tokens 3"),
        ("protocol: fence", "protocol is 'fence'; expected one of boxed"),
        ("tools: [{uses: pyton}]", "tools[0].uses is 'pyton'; expected one of"),
        ("tools: [{uses: python, tool: rum}]", "no tool of sandbox 'python' named 'rum'"),
        ("tools: [{uses: python}, {uses: python}]", "two tools are named 'python'"),
        ("on_no_call: stop", "tasks[0].on_no_call is 'stop'; expected one of end, remind, ignore"),
        ("turn_checks: [{uses: call_okay, reward: 1}]", "turn_checks[0].uses is 'call_okay'"),
        (
            "turn_checks: [{uses: call_ok, reward: 1, name: outcome}]",
            "turn_checks[0]: the name 'outcome' is the verifier's",
        ),
        ("turn_checks: [{uses: call_ok}]", "tasks[0].turn_checks[0].reward is missing"),
        ("sandbox: {isolation: dokcer}", "sandbox.isolation is 'dokcer'"),
        ("sandbox: {require: [kernle]}", "isolation 'jail' has no layer 'kernle'; did you mean 'kernel'?"),
        ("sandbox: {resources: {memory: 512}}", "tasks[0].sandbox.resources.memory is 512"),
        ("sandbox: {resources: {memory: 5T}}", "tasks[0].sandbox.resources.memory: a size is '5T'"),
        ("sandbox: {network: {mode: public}}", "tasks[0].sandbox.network.mode: 'public' is not built yet"),
        ("sandbox: {services: {db: {}}}", "tasks[0].sandbox: services is not built yet"),
        ("files: [{path: ../a, content: x}]", "tasks[0].files[0]: path is '../a'"),
        ("files: [{path: a}]", "tasks[0].files[0]: needs exactly one of content and b64"),
        ("files: [{path: a, b64: '?'}]", "files[0].b64 is not base64"),
        ("lean: {}", "tasks[0]: lean is not built yet"),
        ("steps: []", "tasks[0]: steps is not built yet"),
    ],
)  # fmt: skip
def test_a_bad_key_of_a_task_is_told_with_its_line(tmp_path: Path, key: str, message: str) -> None:
    assert error(tmp_path, f"{HEAD}{TASK}  {key}\n").startswith(f"s.yaml:8: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD, "s.yaml:1: suite 's' has no tasks and no sources"),
        (HEAD + "tasks: []", "s.yaml:1: suite 's' has no tasks and no sources"),
        ("suite: {name: s}", "s.yaml:1: schema is missing"),
        (
            HEAD.replace("suite/1", "suite/2") + TASK,
            "s.yaml:1: schema is 'agenthub.suite/2'; expected one of agenthub.suite/1",
        ),
        (HEAD.replace('"1"', "1") + TASK, "s.yaml:2: suite.version is 1; expected a valid string"),
        (HEAD.replace("name: s", "name: a b") + TASK, "s.yaml:2: suite.name is 'a b'"),
        (
            HEAD + "defaults:\n  limits: {episode_seconds: 3}\n" + TASK + "  limits: {turn_seconds: 9}",
            "s.yaml:10: limits: turn_seconds 9 is more than episode_seconds 3",
        ),
        (
            HEAD + TASK.replace("numeric", "numerc"),
            "s.yaml:7: verifier.checks[0].uses is 'numerc'; expected one of citation, cover_match, exact",
        ),
        (HEAD + TASK.replace("{user: Hi}", "{}"), "s.yaml:5: prompt has no user message"),
        (
            HEAD + TASK.replace("{user: Hi}", "{user: Hi, messages: [{role: user, content: Ho}]}"),
            "s.yaml:5: tasks[0].prompt: has both user and messages",
        ),
        (HEAD + TASK.replace("answer: 1", "answer: many"), "s.yaml:7: check 'numeric': the target is no number"),
        (HEAD + TASK.replace("answer: 1", ""), "s.yaml:7: check 'numeric': the task has no target"),
        (HEAD + TASK.replace("{uses: numeric}", ""), "s.yaml:7: verifier.checks is empty"),
        (
            HEAD + TASK.replace("{uses: numeric}", "{uses: numeric, args: {abbs: 1}}"),
            "s.yaml:7: verifier.checks[0].args has no key 'abbs'; did you mean 'abs'?",
        ),
        (
            HEAD + TASK.replace("{uses: numeric}", "{uses: numeric}, {uses: numeric}"),
            "s.yaml:7: two checks have the id 'numeric'",
        ),
        (HEAD + TASK.replace("id: a", "id: a/b"), "s.yaml:4: tasks[0].id is 'a/b'"),
        (HEAD + TASK.replace("- id: a", "- split: x"), "s.yaml:4: id is missing"),
        (HEAD + TASK + TASK.removeprefix("tasks:\n"), "s.yaml:8: task id 'a' is taken already by s.yaml:4"),
        (
            HEAD.replace('"1"}', '"1", splits: {train: {}}}') + TASK + "  split: trian",
            "s.yaml:4: no split named 'trian'; did you mean 'train'?",
        ),
        (HEAD + "extends: x\n" + TASK, "s.yaml:3: the file: extends is not built yet"),
        (HEAD + TASK + "  setup: []\n  teardown: []", "s.yaml:8: tasks[0]: setup is not built yet"),
        (
            HEAD + "sources: [{kind: csv, path: x}]",
            "s.yaml:3: sources[0].kind is 'csv'; expected one of jsonl, generator",
        ),
        (HEAD + "sources: [{path: x}]", "s.yaml:3: sources[0].kind is missing"),
        (
            HEAD + "sources: [{kind: generator, uses: arithmetic}]",
            "s.yaml:3: sources[0]: needs exactly one of count and size",
        ),
        (
            HEAD + "sources: [{kind: generator, uses: arithmetics, size: 2}]",
            "s.yaml:3: no generator named 'arithmetics'; did you mean 'arithmetic'?",
        ),
        (
            HEAD + "sources: [{kind: generator, uses: arithmetic, size: 2, config: {kind: [pair]}}]",
            "s.yaml:3: no setting of the arithmetic generator named 'kind'; did you mean 'kinds'?",
        ),
        (
            HEAD + "sources: [{kind: jsonl, path: gone.jsonl, fields: {}}]",
            "s.yaml:3: suite 's' needs gone.jsonl, which is not there",
        ),
    ],
)  # fmt: skip
def test_a_bad_suite_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert error(tmp_path, text).startswith(message)


def jsonl_suite(path: str = "rows.jsonl", **fields: Any) -> str:
    given = {"prompt": {"user": "{q}"}, "target": {"answer": "{a}"}, "verifier": {"checks": [{"uses": "numeric"}]}}
    source = {"kind": "jsonl", "path": path, "fields": given | fields, "split": "test"}
    return HEAD + f"sources:\n- {json.dumps(source)}\n"


def test_tasks_from_rows(tmp_path: Path) -> None:
    write(tmp_path, '{"q": "1+1", "a": 2}\n\n{"q": "1+2", "a": "3"}\n', "rows.jsonl")
    suite = load(tmp_path, jsonl_suite())
    assert [task.id for task in suite.tasks] == ["00000", "00001"]
    assert [task.messages[-1].content for task in suite.tasks] == ["1+1", "1+2"]
    assert [task.target for task in suite.tasks] == [2, "3"]
    assert suite.splits == ("test",)
    assert suite.tasks[1].place.endswith("s.yaml:4 (rows.jsonl:3)")


def test_rows_may_be_compressed_limited_and_named_by_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps({"q": str(index), "a": index}) + "\n" for index in range(9))
    monkeypatch.setenv("ROWS_HERE", str(tmp_path))
    text = jsonl_suite("${ROWS_HERE}/rows.jsonl.gz").replace('"split"', '"limit": 4, "split"')
    assert [task.target for task in load(tmp_path, text).tasks] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{"q": "1", "a": 2}\n{"q": ', "rows.jsonl:2: is not JSON"),
        ("[1]\n", "rows.jsonl:1: a row is list; expected an object"),
        ('{"q": "1"}\n', "s.yaml:4 (row rows.jsonl:1): the row has no field 'a'"),
        ('{"q": 1, "a": 2}\n', "s.yaml:4: prompt.user is 1; expected a valid string"),
        ('{"q": "1", "a": "x"}\n', "s.yaml:4 (rows.jsonl:1): check 'numeric': the target is no number"),
        ("", "s.yaml:1: suite 's' has no tasks"),
    ],
)
def test_a_bad_row_is_told_with_its_line(tmp_path: Path, rows: str, message: str) -> None:
    write(tmp_path, rows, "rows.jsonl")
    assert error(tmp_path, jsonl_suite()).startswith(message)


def test_rows_that_are_not_text_are_told(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'{"q": "\xff"}')
    assert "rows.jsonl: is not UTF-8" in error(tmp_path, jsonl_suite())
    (tmp_path / "rows.jsonl.gz").write_bytes(b"not gzip")
    assert "cannot be read" in error(tmp_path, jsonl_suite("rows.jsonl.gz"))


def test_a_suite_without_its_data_is_listed_and_keeps_no_other_from_being_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ROWS_HERE", raising=False)
    write(tmp_path, HEAD + TASK)
    write(tmp_path, jsonl_suite("${ROWS_HERE}/rows.jsonl").replace("name: s", "name: other"), "other.yaml")
    suites = load_suites([tmp_path])
    assert list(suites) == ["s"]
    assert len(suites) == 1
    assert dict(suites)["s"].tasks
    assert "set ROWS_HERE to the folder that holds rows.jsonl" in suites.unavailable["other"]
    with pytest.raises(ConfigError, match="suite 'other' needs"):
        suites["other"]
    assert "other" not in suites
    assert suites.get("nobody") is None
    with pytest.raises(UnknownName, match="no suite named 'othr'; did you mean 'other'"):
        suites["othr"]


def test_a_broken_suite_says_which_file(tmp_path: Path) -> None:
    write(tmp_path, HEAD + TASK)
    write(tmp_path, HEAD + "task: []\n", "zz.yaml")
    with pytest.raises(ConfigError, match=r"zz\.yaml:3: the file has no key 'task'; did you mean 'tasks'"):
        load_suites([tmp_path])


def test_two_suites_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, HEAD + TASK)
    write(tmp_path, HEAD + TASK, "t.yaml")
    with pytest.raises(ConfigError, match=r"t\.yaml:2: a suite named 's' is in .*s\.yaml already"):
        load_suites([tmp_path])


def test_a_folder_without_suites_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no suite"):
        load_suites([tmp_path])


def test_a_task_is_found_by_name_and_a_miss_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + TASK.replace("id: a", "id: first-task"))
    assert open_task("s", "first-task", [path]) == open_task(str(path), "first-task")
    with pytest.raises(UnknownName, match="no task named 'first-tusk'; did you mean 'first-task'"):
        find_task(load_suite(path), "first-tusk")


def test_a_suite_is_built_once(tmp_path: Path) -> None:
    suites = load_suites([write(tmp_path, HEAD + TASK)])
    assert suites["s"] is suites["s"]


def test_the_suites_that_come_along_load() -> None:
    suites = load_suites()
    assert {"arithmetic", "python_basics"} <= set(suites)
    assert set(suites) | set(suites.unavailable) == {path.stem for path in default_folder().rglob("*.yaml")}
    arithmetic = suites["arithmetic"]
    train, held_out = arithmetic.split("train"), arithmetic.split("eval")
    assert len(held_out) >= 200
    asked = {task.messages[-1].content for task in train}
    assert not asked & {task.messages[-1].content for task in held_out}
    assert all(len(task.messages) == 1 and len(task.messages[0].content) <= 20 for task in arithmetic.tasks)
