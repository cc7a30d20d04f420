"""Scripted solutions of MiniWoB++ pages, from the observation alone.

An oracle is a generator: it is given what the policy is shown, yields calls, and is sent what is shown after them.
"""

from __future__ import annotations

from tests.browser.oracles import buttons, drawing, forms, lists, mail, reading
from tests.browser.oracles.view import ORACLES, View, view_of

__all__ = ["ORACLES", "View", "buttons", "drawing", "forms", "lists", "mail", "reading", "view_of"]
