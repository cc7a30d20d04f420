"""Scripted policies: play an episode as text, without a model. `tasks run`, `tasks lint` and `play` use them."""

from __future__ import annotations

from collections.abc import Sequence

from agenthub.errors import UserError

__all__ = ["ScriptedPolicy"]


class ScriptedPolicy:
    """Plays given texts in order, then `rest` for ever."""

    def __init__(self, texts: Sequence[str], *, rest: str = "", name: str = "scripted") -> None:
        self.name = name
        self._texts, self._rest = tuple(texts), rest

    @classmethod
    def oracle(cls, solution: Sequence[str], where: str = "") -> ScriptedPolicy:
        """Plays a task's solution.

        Raises:
            UserError: the task has none.
        """
        if not solution:
            raise UserError(f"{where}: the task has no solution to play" if where else "the task has no solution")
        return cls(solution, name="oracle")

    @classmethod
    def noop(cls) -> ScriptedPolicy:
        """Says nothing of use, turn after turn."""
        return cls((), rest="I do nothing.", name="noop")

    @classmethod
    def fixed(cls, texts: Sequence[str]) -> ScriptedPolicy:
        """Plays these texts whatever is shown; the last one again when they are spent."""
        return cls(texts, rest=texts[-1] if texts else "", name="fixed")

    def act(self, turn_index: int, observation_text: str) -> str:
        """The text of a turn; what the last one showed does not matter to a script."""
        del observation_text
        return self._texts[turn_index] if turn_index < len(self._texts) else self._rest
