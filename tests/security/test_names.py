"""The family of attacks is whole."""

from __future__ import annotations

import re

from tests.security.payloads import ATTACKS
from tests.security.test_grader_tamper import PARTS


def test_all_sixty_four_cases_are_here() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(set(names)) == len(names)
    numbers = {int(found[0]) for name in names if (found := re.match(r"\d\d", name))}
    assert numbers == set(range(1, 64)), "64 is the grader's family"
    assert {part[0] for part in PARTS} == set("abcdefghijkl")
