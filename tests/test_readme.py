"""What README shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from agenthub.episodes import Workbench
from agenthub.suites.lint import lint
from agenthub.suites.load import default_folder, load_suite
from tests.served import served

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", TEXT, re.DOTALL | re.MULTILINE)
    assert len(found) == 1
    return textwrap.dedent(found[0][1])


async def test_the_suite_of_the_readme_is_sound(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(block("yaml"))
    bench = Workbench()
    try:
        assert [hole.what for hole in await lint(load_suite(tmp_path / "mine.yaml").tasks, bench)] == []
    finally:
        await bench.close()


def test_the_trainer_of_the_readme_plays_four_episodes(tmp_path: Path) -> None:
    with served(default_folder() / "arithmetic.yaml", tmp_path) as url:
        program = block("python").replace("http://127.0.0.1:8700", url)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("```output\n836\n```") == 4
    assert done.stdout.count("1.0 answered ok") == 4


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", TEXT))))
def test_a_link_of_the_readme_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
