"""The attacks on the jail, against containers: the same payloads, the same required outcomes."""

from __future__ import annotations

import pytest

from tests.docker import test_contract
from tests.security import test_attacks

pytestmark = [pytest.mark.docker, pytest.mark.slow]

test_attack = test_attacks.test_attack
host_to_attack = test_attacks.host_to_attack
kind, factory = test_contract.kind, test_contract.factory
