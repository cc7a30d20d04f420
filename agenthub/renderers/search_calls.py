"""Templates of search agents in which a call is JSON: verl's, tool calls with any tool, and bare JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from agenthub.records import Observation
from agenthub.renderer import Parsed, ParsedCall
from agenthub.renderers.native import native_calls
from agenthub.renderers.search import Template, empty, found, plain
from agenthub.sandbox import ToolSpec

__all__ = ["Json", "ToolCall", "Verl"]


class ToolCall(Template):
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>` with any tool; `<answer>` ends the episode."""

    def instructions(self, tools: Sequence[ToolSpec]) -> str:
        """The tools as JSON, and the two forms of a turn."""
        rows = [
            {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)} for tool in tools
        ]
        return (
            "Answer the question. The tools:\n"
            + "\n".join(json.dumps(row) for row in rows)
            + '\nCall one with <tool_call>{"name": ..., "arguments": {...}}</tool_call>; what it shows comes between '
            "<tool_response> and </tool_response>. Answer with <answer> answer </answer>."
        )

    def read(self, text: str) -> Parsed:
        """The first complete call or answer. Total."""
        ends = [(text.find(mark), len(mark)) for mark in ("</tool_call>", "</answer>") if mark in text]
        kept = text[: sum(min(ends))] if ends else text
        answer = re.search(r"<answer>(.*?)</answer>", kept, re.DOTALL)
        if answer is not None:
            return Parsed(text=kept, answer=answer[1].strip())
        if "<tool_call>" not in kept:
            return Parsed(text=kept)
        calls = native_calls(kept)
        made = tuple(one for call in calls.calls for one in self._spread(call))
        return Parsed(text=kept, calls=made, parse_error=calls.error)

    def show(self, observations: Sequence[Observation]) -> str:
        """Each observation between <tool_response> tags."""
        return "".join(f"\n<tool_response>\n{plain(observation)}\n</tool_response>\n" for observation in observations)

    def _spread(self, call: ParsedCall) -> Sequence[ParsedCall]:
        return (call,)


class Verl(ToolCall):
    """verl's search tool: `query_list` holds one query or more; the result is JSON with one text, as its
    `search_r1_like_utils` writes it: titles in the quotes of the corpus, nothing for a query that found nothing."""

    def show(self, observations: Sequence[Observation]) -> str:
        """`{"result": ...}` with the passages of each query, `---` between them."""
        if not observations:
            return ""
        if all(not observation.call_id for observation in observations):
            return f"\n<tool_response>\n{plain(observations[0])}\n</tool_response>\n"
        texts = [self._documents(observation) for observation in observations]
        body = json.dumps({"result": "\n---\n".join(texts)}, ensure_ascii=False)
        return f"\n<tool_response>\n{body}\n</tool_response>\n"

    @staticmethod
    def _documents(observation: Observation) -> str:
        rows = found(observation)
        if not rows:
            return "" if empty(observation) else observation.text
        return "".join(f'Doc {n} (Title: "{row.title}")\n{row.text}\n\n' for n, row in enumerate(rows, 1)).strip()

    def _spread(self, call: ParsedCall) -> Sequence[ParsedCall]:
        queries = call.arguments.get("query_list")
        if not isinstance(queries, list) or not queries:
            return (call,)
        rest = {name: value for name, value in call.arguments.items() if name != "query_list"}
        return [ParsedCall(tool=call.tool, arguments={**rest, "query": query}) for query in queries]


class Json(Template):
    """One JSON object a turn: `{"tool": ..., "arguments": {...}}` or `{"answer": ...}`, after any text."""

    endings: ClassVar[frozenset[str]] = frozenset("}")

    def instructions(self, tools: Sequence[ToolSpec]) -> str:
        """The tools as JSON, and the two forms of a turn."""
        rows = [
            {"tool": tool.name, "description": tool.description, "arguments": dict(tool.parameters)} for tool in tools
        ]
        return (
            "Answer the question with one JSON object a turn. The tools:\n"
            + "\n".join(json.dumps(row) for row in rows)
            + '\nCall one with {"tool": ..., "arguments": {...}}; answer with {"answer": ...}.'
        )

    def read(self, text: str) -> Parsed:
        """The first complete object that has `tool` or `answer`. Total."""
        start, tries = text.find("{"), 0
        while start >= 0 and tries < 64:
            tries += 1
            try:
                value, end = json.JSONDecoder().raw_decode(text, start)
            except (ValueError, RecursionError):
                start = text.find("{", start + 1)
                continue
            parsed = _json_action(value, text[:end])
            if parsed is not None:
                return parsed
            start = text.find("{", end)
        return Parsed(text=text, parse_error="no complete JSON object with `tool` or `answer`" if tries else None)

    def show(self, observations: Sequence[Observation]) -> str:
        """One line of JSON: `results` where something was found, `output` or `error` where it is something else."""
        rows = [_json_row(observation) for observation in observations]
        return "\n" + json.dumps(rows[0] if len(rows) == 1 else rows, ensure_ascii=False) + "\n" if rows else ""


def _json_action(value: Any, kept: str) -> Parsed | None:
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("tool"), str):
        arguments = value.get("arguments", {})
        if not isinstance(arguments, dict):
            return Parsed(text=kept, parse_error="`arguments` is no object")
        return Parsed(text=kept, calls=(ParsedCall(tool=value["tool"], arguments=arguments),))
    if "answer" in value:
        answer = value["answer"]
        return Parsed(text=kept, answer=answer if isinstance(answer, str) else json.dumps(answer))
    return None


def _json_row(observation: Observation) -> dict[str, Any]:
    rows = found(observation)
    if rows or empty(observation):
        return {"results": [{"title": row.title, "source": row.source.strip(" ()"), "text": row.text} for row in rows]}
    return {"error" if observation.failed else "output": observation.text}
