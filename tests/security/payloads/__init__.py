"""Payloads of model-written code that attack box, host, neighbour or protocol, and what each must meet."""

from __future__ import annotations

from tests.security.payloads.attack import Attack
from tests.security.payloads.files import FILES
from tests.security.payloads.network import NETWORK
from tests.security.payloads.protocol import PROTOCOL
from tests.security.payloads.reach import REACH
from tests.security.payloads.resources import RESOURCES
from tests.security.payloads.timing import TIMING

__all__ = ["ATTACKS", "Attack"]

ATTACKS: tuple[Attack, ...] = (*RESOURCES, *TIMING, *REACH, *FILES, *NETWORK, *PROTOCOL)
