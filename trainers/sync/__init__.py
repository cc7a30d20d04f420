"""Weight sync: how new weights reach the policy that serves."""

from __future__ import annotations
