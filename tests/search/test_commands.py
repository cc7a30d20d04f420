"""`agenthub search` and the script that makes a corpus of Debian's Python documentation."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agenthub.episodes import Workbench
from agenthub.policies.scripted import ScriptedPolicy
from agenthub.suites.lint import play, won
from agenthub.suites.load import load_suite
from agenthub.wire import Action
from tests.search.corpora import jsonl, rows

ROOT = Path(__file__).resolve().parents[2]


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agenthub", "search", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "AGENTHUB_CORPORA": str(folder)},
    )


def test_a_corpus_from_the_command_line(tmp_path: Path) -> None:
    corpus = jsonl(tmp_path / "lamps.jsonl", rows(20))
    with corpus.open("a") as stream:
        stream.write("{nonsense\n")
    done = command(tmp_path / "c", "index", str(corpus))
    assert done.returncode == 0 and "20 written" in done.stdout and "1 left out" in done.stdout
    assert f"{corpus}:21" in done.stdout and "not JSON" in done.stdout
    again = command(tmp_path / "c", "index", str(corpus), "--strict")
    assert again.returncode == 1 and "20 unchanged" in again.stdout
    found = command(tmp_path / "c", "query", "lamps", "w7x", "--k", "1")
    assert "Title 7 (d0007)" in found.stdout
    listed = command(tmp_path / "c", "list")
    assert "lamps: 20 documents, 20 passages" in listed.stdout and "encyclopedia" in listed.stdout
    assert "sound" in command(tmp_path / "c", "check", "lamps").stdout
    wrong = command(tmp_path / "c", "query", "lamp", "x")
    assert wrong.returncode == 2 and "did you mean 'lamps'" in wrong.stderr and "Traceback" not in wrong.stderr


def test_a_corpus_of_which_nothing_can_be_used_takes_nothing_away(tmp_path: Path) -> None:
    corpus = jsonl(tmp_path / "lamps.jsonl", rows(20))
    assert command(tmp_path / "c", "index", str(corpus)).returncode == 0
    for content in (b"\xff\xfe\n" * 120, b""):
        corpus.write_bytes(content)
        done = command(tmp_path / "c", "index", str(corpus))
        assert done.returncode == 2 and "no document that can be used" in done.stderr and "Traceback" not in done.stderr
    assert "lamps: 20 documents, 20 passages" in command(tmp_path / "c", "list").stdout


def test_places_are_shown_as_they_are(tmp_path: Path) -> None:
    corpus = jsonl(tmp_path / "lamps.jsonl", rows(99))
    with corpus.open("a") as stream:
        stream.write("{nonsense\n")
    assert f"{corpus}:100: is not JSON" in command(tmp_path / "c", "index", str(corpus)).stdout


def test_a_damaged_index_is_found(tmp_path: Path) -> None:
    command(tmp_path / "c", "index", str(jsonl(tmp_path / "lamps.jsonl", rows(20))))
    segment = min((tmp_path / "c" / "lamps" / "segments").glob("*.term"))
    segment.write_bytes(b"\0" * segment.stat().st_size)
    done = command(tmp_path / "c", "check", "lamps")
    assert done.returncode == 1 and segment.name in done.stderr


def test_pythons_documentation_as_a_corpus_and_a_suite(tmp_path: Path) -> None:
    page = """<title>json</title><body><dl class="py function"><dt id="json.dumps">json.dumps(obj)</dt>
        <dd><p>Serialise an object to a string in the notation of another language, by a table.</p></dd></dl></body>"""
    (tmp_path / "html" / "_sources").mkdir(parents=True)
    (tmp_path / "html" / "json.html").write_text(page)
    (tmp_path / "html" / "_sources" / "json.rst.txt").write_text("source")
    script = [sys.executable, str(ROOT / "scripts" / "python-docs-corpus")]
    done = subprocess.run(
        [*script, str(tmp_path / "out"), "--html", str(tmp_path / "html")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "1 pages, 0 left out, 1 questions" in done.stdout
    (task,) = load_suite(tmp_path / "out" / "python_docs.yaml").tasks
    assert task.target == "json.dumps" and "Serialise an object" in task.messages[-1].content
    missing = subprocess.run(
        [*script, str(tmp_path), "--html", str(tmp_path / "no")], capture_output=True, text=True, timeout=60
    )
    assert missing.returncode == 2 and "apt-get install python3-doc" in missing.stderr


async def all_won(path: Path, count: int) -> bool:
    bench = Workbench()
    try:
        for task in load_suite(path).tasks[:count]:
            script = ScriptedPolicy.oracle(task.solution)
            end = await play(task, bench, lambda turn, own=script: Action(text=own.act(turn, "")))  # type: ignore[misc]
            if not won(end, task):
                return False
    finally:
        await bench.close()
    return True


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_real_documentation_is_played_by_its_oracle(tmp_path: Path) -> None:
    if not Path("/usr/share/doc/python3-doc/html").is_dir():
        pytest.skip("python3-doc is not installed")
    script = [sys.executable, str(ROOT / "scripts" / "python-docs-corpus"), str(tmp_path)]
    subprocess.run(script, check=True, timeout=200)
    assert asyncio.run(all_won(tmp_path / "python_docs.yaml", 50))
