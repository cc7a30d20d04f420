"""The protocol `sql_tags`: a query in `<sql>` tags, the final statement in `<answer>` tags."""

from __future__ import annotations

from collections.abc import Sequence

from agenthub.records import Observation
from agenthub.renderer import ParsedCall
from agenthub.renderers.search import Tags, plain
from agenthub.sandbox import ToolSpec

__all__ = ["SqlTags"]


class SqlTags(Tags):
    """A turn is text with one tag: `<sql>` runs a query, `<answer>` gives the statement that is graded."""

    names = ("sql", "answer")

    def instructions(self, tools: Sequence[ToolSpec]) -> str:
        """What a system prompt says about the syntax."""
        runs = "<sql> SELECT ... </sql> runs a query and shows its rows; " if tools else ""
        return (
            f"Write one tag a turn: {runs}<answer> SELECT ... </answer> gives the one statement that answers the "
            "question, and ends the episode. What a query shows comes in the next message."
        )

    def show(self, observations: Sequence[Observation]) -> str:
        """Each observation between <result> tags."""
        return "".join(f"\n<result>\n{plain(observation)}\n</result>\n" for observation in observations)

    def _call(self, name: str, content: str) -> ParsedCall | str:
        return ParsedCall(tool=name, arguments={"query": content}) if content else "the query is empty"
