"""YAML into models: what is read, and where and how every problem is told."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agenthub.config import ConfigModel, apply_overrides, load_yaml, parse_document, parse_yaml
from agenthub.errors import ConfigError
from agenthub.suites.schema import SuiteFile


class Limits(ConfigModel):
    max_turns: int = 3
    seconds: float = 1.0


class Recipe(ConfigModel):
    name: str
    limits: Limits = Limits()
    mode: Literal["end", "remind"] = "end"
    rows: tuple[Limits, ...] = ()
    by_name: dict[str, Limits] | None = None
    free: dict[str, Any] | None = None


def error(text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "f.yaml", Recipe, overrides=overrides)
    return str(caught.value)


def test_a_file_becomes_a_model() -> None:
    recipe = parse_yaml("name: a\nlimits: {max_turns: 7}\nrows: [{seconds: 2}]", "f.yaml", Recipe)
    assert recipe == Recipe(name="a", limits=Limits(max_turns=7), rows=(Limits(seconds=2),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.yaml: is empty"),
        ("# only a comment\n", "f.yaml: is empty"),
        ("- a", "f.yaml:1: is a list; expected a mapping with keys name, limits"),
        ("name: 3", "f.yaml:1: name is 3; expected a valid string"),
        ("name: a\nlimits:\n  max_turn: 4", "f.yaml:3: limits has no key 'max_turn'; did you mean 'max_turns'?"),
        ("name: a\nlimit: 4", "f.yaml:2: the file has no key 'limit'; did you mean 'limits'?"),
        ("name: a\nlimits:\n  seconds: soon", "f.yaml:3: limits.seconds is 'soon'; expected a valid number"),
        ("name: a\nmode: remid", "f.yaml:2: mode is 'remid'; expected one of end, remind; did you mean 'remind'?"),
        ("name: a\nrows:\n- {}\n- {z: 1}", "f.yaml:4: rows[1] has no key 'z'; expected one of max_turns, seconds"),
        ("name: a\nby_name:\n  q: {max_tur: 1}", "f.yaml:3: by_name.q has no key 'max_tur'; did you mean 'max_turns'?"),
        ("limits: {}", "f.yaml:1: name is missing"),
        ("name: a\nname: b", "f.yaml:2: key 'name' stands here twice, first in line 1"),
        ("name: !python/object a", "f.yaml:1: tag"),
        ("name: [", "f.yaml:1: is not YAML"),
        ("name: a\n\tb: c", "f.yaml:2: is not YAML"),
        ("name: a\n---\nname: b", "f.yaml:2: is not YAML"),
        ("name: a\nfree: *gone", "f.yaml:2: is not YAML: found undefined alias"),
        ("name: a\nfree: &x {a: *x}", "f.yaml:2: an alias contains itself"),
        ("1: a", "f.yaml:1: key 1 is not a string; quote it"),
        ("? [a]\n: b", "f.yaml:1: key a list or mapping is not a string"),
        ("name: a\nfree: {n: " + "9" * 5000 + "}", "f.yaml:2: '9999"),
        ('name: "\x00"', "f.yaml: is not YAML"),
        ('name: "\\ud800"', "f.yaml:1: holds half of a surrogate pair"),
        ("[" * 5000, "f.yaml: is nested too deeply"),
    ],
)
def test_a_bad_file_is_told_with_its_line_and_what_would_do(text: str, message: str) -> None:
    assert error(text).startswith(message)


def test_all_problems_of_a_file_are_told_at_once_in_its_order() -> None:
    lines = error("name: 1\nmode: x\nlimits:\n  a: 1\nother: 2").splitlines()
    assert [line.split(" ")[0] for line in lines] == ["f.yaml:1:", "f.yaml:2:", "f.yaml:4:", "f.yaml:5:"]


def test_an_alias_bomb_is_stopped() -> None:
    rows = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    rows += [f"a{i}: &a{i} [" + ",".join([f"*a{i - 1}"] * 10) + "]" for i in range(1, 9)]
    assert "once its aliases are expanded" in error("\n".join(rows))


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = "{a: 0x1F, b: 0o17, c: 010, d: .inf, e: 1e5, f: 1_000, g: yes, h: ~, i: TRUE, j: '3', k: 2024-01-01}"
    assert parse_document(text, "f.yaml").data == {
        "a": 31, "b": 15, "c": 10, "d": math.inf, "e": 1e5, "f": 1000, "g": "yes", "h": None, "i": True, "j": "3",
        "k": "2024-01-01",
    }  # fmt: skip


def test_a_file_that_cannot_be_read_is_told_by_name(tmp_path: Path) -> None:
    missing = tmp_path / "gone.yaml"
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot be read: No such file"):
        load_yaml(missing, Recipe)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(tmp_path, Recipe)
    with pytest.raises(ConfigError, match="is no file name"):
        load_yaml("a\0b", Recipe)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text("name: a")
    path.chmod(0)
    with pytest.raises(ConfigError, match="Permission denied"):
        load_yaml(path, Recipe)


def test_a_file_that_is_no_text_or_too_large_is_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"name: a\nfree: \xff")
    with pytest.raises(ConfigError, match=r"binary\.yaml:2: is not UTF-8"):
        load_yaml(binary, Recipe)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (9 << 20))
    with pytest.raises(ConfigError, match="larger than 8 MiB"):
        load_yaml(large, Recipe)


def test_overrides_go_over_the_file() -> None:
    overrides = ["limits.max_turns=5", "rows.0.seconds=2.5", "by_name.k={max_turns: 4}", "free.a.b=[1, x]"]
    recipe = parse_yaml("name: a\nrows: [{}]", "f.yaml", Recipe, overrides=overrides)
    assert recipe.limits.max_turns == 5
    assert recipe.rows[0].seconds == 2.5
    assert recipe.by_name == {"k": Limits(max_turns=4)}
    assert recipe.free == {"a": {"b": [1, "x"]}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("limits.max_turs=5", "limits has no key 'max_turs'; did you mean 'max_turns'?"),
        ("limits.max_turns=x", "limits.max_turns is 'x'; expected a valid integer"),
        ("limits.max_turns", "expected key=value"),
        ("=3", "expected key=value"),
        ("rows.1.seconds=7", "rows has 1 entries; expected an index from 0"),
        ("name.x=3", "name is 'a', which has no keys"),
        ("name=[", "is not YAML"),
    ],
)
def test_a_bad_override_is_told_as_it_was_given(override: str, message: str) -> None:
    told = error("name: a\nrows: [{}]", override)
    assert told.startswith(f"--set {override}")
    assert message in told


def test_apply_overrides_leaves_its_input_alone() -> None:
    data = {"limits": {"max_turns": 1}}
    assert apply_overrides(Recipe, data, ["limits.max_turns=2"]) == {"limits": {"max_turns": 2}}
    assert data == {"limits": {"max_turns": 1}}


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_document_or_a_config_error_with_the_files_name(text: str) -> None:
    try:
        parse_document(text, "f.yaml")
    except ConfigError as told:
        assert str(told).startswith("f.yaml")


_YAMLISH = st.text(alphabet="ab:-?[]{},&*!|>'\"%@# \n\t01.~", max_size=60)


@settings(deadline=None)
@given(_YAMLISH)
def test_any_yaml_like_text_is_a_model_or_a_config_error(text: str) -> None:
    try:
        parse_yaml(text, "f.yaml", Recipe)
    except ConfigError as told:
        assert str(told).startswith("f.yaml")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(key=st.text(min_size=1, max_size=12), value=_JSON)
def test_an_unknown_key_is_named_with_its_line_whatever_its_value(key: str, value: object) -> None:
    if key in Recipe.model_fields:
        return
    text = "name: a\n" + json.dumps(key, ensure_ascii=True) + ": " + json.dumps(value, ensure_ascii=True)
    try:
        parse_yaml(text, "f.yaml", Recipe)
    except ConfigError as told:
        assert str(told).startswith("f.yaml:2")
    else:
        raise AssertionError("an unknown key was taken")


def test_a_list_where_a_mapping_belongs_is_told_with_the_keys() -> None:
    text = "schema: agenthub.suite/1\nsuite: {name: s}\ntasks:\n- {id: a, prompt: {user: x}, solution: [a]}\n"
    with pytest.raises(
        ConfigError, match=r"f.yaml:4: tasks\[0\].solution is a list; expected a mapping with keys .*turns"
    ):
        parse_yaml(text, "f.yaml", SuiteFile)
