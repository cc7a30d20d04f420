"""Tool calls in the models' own syntax, read from text.

Two published forms: Hermes and Qwen, any number of `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`; and
Llama 3, a message that is one JSON object `{"name": ..., "parameters": {...}}`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from agenthub.renderer import ParsedCall

__all__ = ["NativeCalls", "native_calls"]

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_LLAMA_START = re.compile(r'\{\s*"(?:name|type|parameters|function)"')
_PYTHON_TAG = "<|python_tag|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeCalls:
    """What a message says."""

    calls: tuple[ParsedCall, ...] = ()
    rest: str = ""
    """The text beside the calls, without thinking."""
    error: str | None = None
    """Why a call could not be read; then none of the message's calls count."""


def native_calls(text: str) -> NativeCalls:
    """Read a message. Total: any string gives a NativeCalls."""
    thought, closed, said = text.rpartition("</think>")
    if not closed and "<think>" in text:
        return NativeCalls(rest="", error="the thinking has no end")
    del thought
    if "<tool_call>" in said or "</tool_call>" in said:
        return _hermes(said)
    return _llama(said)


def _hermes(text: str) -> NativeCalls:
    rest = _CALL.sub("", text)
    if "<tool_call>" in rest or "</tool_call>" in rest:
        return NativeCalls(rest=rest, error="a <tool_call> is not closed")
    return _all([match.group(1) for match in _CALL.finditer(text)], rest.strip())


def _llama(text: str) -> NativeCalls:
    message = text.strip()
    tagged = message.startswith(_PYTHON_TAG)
    message = message.removeprefix(_PYTHON_TAG).strip()
    if tagged or _LLAMA_START.match(message):
        return _all([message], "")
    return NativeCalls(rest=message)


def _all(sources: list[str], rest: str) -> NativeCalls:
    calls: list[ParsedCall] = []
    for source in sources:
        call = _call(source)
        if isinstance(call, str):
            return NativeCalls(rest=rest, error=call)
        calls.append(call)
    return NativeCalls(calls=tuple(calls), rest=rest)


def _call(source: str) -> ParsedCall | str:
    """One call, or why it cannot be read."""
    try:
        value = json.loads(source, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        return f"a tool call is not JSON: {type(error).__name__}: {error}"[:200]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        return "a tool call must be an object with a name"
    arguments: Any = value.get("arguments", value.get("parameters", {}))
    if not isinstance(arguments, dict):
        return "a tool call's arguments must be an object"
    return ParsedCall(tool=value["name"], arguments=arguments)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
