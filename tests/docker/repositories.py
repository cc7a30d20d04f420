"""Three small repositories, each with a history, a failing test and the fix that makes it pass."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["REPOSITORIES", "Repository", "write"]

DOCKERFILE = """
ARG BASE_IMAGE=debian:bookworm-slim
FROM ${BASE_IMAGE}
COPY --chown=1000:1000 . /repo
WORKDIR /repo
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """One repository and its task."""

    name: str
    files: Mapping[str, str]
    broken: Mapping[str, str]
    """The commit that broke it."""
    fix: str
    """The command that the oracle runs."""
    command: str
    tests: Mapping[str, str]
    """The hidden tests."""
    expect: tuple[str, ...] = ()
    pattern: str | None = None


REPOSITORIES = (
    Repository(
        name="rle",
        files={
            "README.md": "# rle\nRun-length encoding.\n",
            "rle/__init__.py": "from rle.codec import decode, encode\n\n__all__ = ['decode', 'encode']\n",
            "rle/codec.py": (
                "from itertools import groupby\n\n\n"
                "def encode(text: str) -> list[tuple[str, int]]:\n"
                "    return [(char, len(list(run))) for char, run in groupby(text)]\n\n\n"
                "def decode(pairs: list[tuple[str, int]]) -> str:\n"
                "    return ''.join(char * count for char, count in pairs)\n"
            ),
            "tests/test_codec.py": "import unittest\n",
        },
        broken={
            "rle/codec.py": (
                "from itertools import groupby\n\n\n"
                "def encode(text: str) -> list[tuple[str, int]]:\n"
                "    return [(char, len(list(run))) for char, run in groupby(sorted(text))]\n\n\n"
                "def decode(pairs: list[tuple[str, int]]) -> str:\n"
                "    return ''.join(char * count for char, count in pairs)\n"
            )
        },
        fix="sed -i 's/groupby(sorted(text))/groupby(text)/' rle/codec.py",
        # -P: a unittest.py in the repository is not the one that runs.
        command="python3 -P -m unittest discover -s tests -t . -v",
        expect=("test_order", "test_round_trip"),
        pattern=r"^(?P<name>test_\w+) .*\.\.\. ok$",
        tests={
            "tests/__init__.py": "",
            "tests/test_codec.py": (
                "import unittest\nfrom rle import decode, encode\n\n\n"
                "class Codec(unittest.TestCase):\n"
                "    def test_order(self):\n"
                "        self.assertEqual(encode('aabca'), [('a', 2), ('b', 1), ('c', 1), ('a', 1)])\n\n"
                "    def test_round_trip(self):\n"
                "        self.assertEqual(decode(encode('mississippi')), 'mississippi')\n"
            ),
        },
    ),
    Repository(
        name="slug",
        files={
            "slug.sh": "#!/bin/sh\nprintf '%s' \"$1\" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-'\n",
            "README.md": "slug.sh TITLE prints a name for an address.\n",
        },
        broken={"slug.sh": "#!/bin/sh\nprintf '%s' $1 | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-'\n"},
        fix='printf \'%s\\n\' \'#!/bin/sh\' \'printf %s "$1" | tr "A-Z " "a-z-" | tr -cd "a-z0-9-"\' > slug.sh',
        command="sh tests/run.sh",
        tests={
            "tests/run.sh": (
                'say() { n=$((n+1)); [ "$2" = "$3" ] && echo "ok $n - $1" || echo "not ok $n - $1"; }\n'
                "say words \"$(sh ./slug.sh 'Two Words')\" two-words\n"
                "say signs \"$(sh ./slug.sh 'A+B')\" ab\n"
            )
        },
        expect=("words", "signs"),
    ),
    Repository(
        name="ledger",
        files={
            "ledger.py": (
                "import csv\nimport sys\nfrom decimal import Decimal\n\n\n"
                "def balances(rows):\n"
                "    totals = {}\n"
                "    for account, amount in rows:\n"
                "        totals[account] = totals.get(account, Decimal(0)) + Decimal(amount)\n"
                "    return totals\n\n\n"
                "if __name__ == '__main__':\n"
                "    for name, total in sorted(balances(csv.reader(sys.stdin)).items()):\n"
                "        print(name, total)\n"
            ),
        },
        broken={
            "ledger.py": (
                "import csv\nimport sys\n\n\n"
                "def balances(rows):\n"
                "    totals = {}\n"
                "    for account, amount in rows:\n"
                "        totals[account] = totals.get(account, 0.0) + float(amount)\n"
                "    return totals\n\n\n"
                "if __name__ == '__main__':\n"
                "    for name, total in sorted(balances(csv.reader(sys.stdin)).items()):\n"
                "        print(name, total)\n"
            )
        },
        fix="sed -i 's/0.0/Decimal(0)/; s/float(/Decimal(/; 1i from decimal import Decimal' ledger.py",
        command="test \"$(printf 'a,0.1\\na,0.2\\nb,1\\n' | python3 ledger.py)\" = \"$(printf 'a 0.3\\nb 1')\"",
        tests={},
    ),
)


def write(repository: Repository, folder: Path) -> Path:
    """Write a repository with two commits, and a Dockerfile beside it; gives the folder of both."""
    root = folder / repository.name
    for files, message in ((repository.files, "Start"), (repository.broken, "Tidy up")):
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
        if not (root / ".git").exists():
            _git(root, "init", "-q", "-b", "main")
        _git(root, "add", "-A")
        _git(root, "-c", "user.name=author", "-c", "user.email=author@example.org", "commit", "-q", "-m", message)
    dockerfile = folder / f"{repository.name}.Dockerfile"
    dockerfile.write_text(DOCKERFILE, encoding="utf-8")
    return root


def _git(root: Path, *arguments: str) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", *arguments], cwd=root, check=True, env=environment, timeout=30)
