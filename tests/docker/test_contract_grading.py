"""The contract of grading boxes, over containers."""

from __future__ import annotations

import pytest

from agenthub.sandbox import CodeBox, SandboxFactory, SandboxSpec
from tests.contract import test_code_box
from tests.docker import test_contract

pytestmark = [pytest.mark.docker, pytest.mark.slow]

globals().update({name: value for name, value in vars(test_code_box).items() if name.startswith("test_")})
kind, factory = test_contract.kind, test_contract.factory


@pytest.fixture
async def box(factory: SandboxFactory) -> CodeBox:
    return await factory.code_box(SandboxSpec())
