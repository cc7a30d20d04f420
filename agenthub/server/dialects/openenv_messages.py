"""What OpenEnv's messages say of the hub's episodes: actions in, observations, states and errors out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from agenthub.errors import UnknownName, UserError
from agenthub.server.answers import JSON, boundary, dumps
from agenthub.server.dialects.player import Player
from agenthub.server.params import read
from agenthub.server.routes import retry_after_s
from agenthub.wire import MAX_TURN_SECONDS, CallIn, EpisodeOpened, GenerationIn, StepDone

__all__ = ["ActionIn", "opened_row", "play", "refused", "state_of", "step_row", "tool_rows"]


class ActionIn(BaseModel):
    """The fields of an action: one of text, calls and answer as in HTTP version 1, or OpenEnv's MCP-style actions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str | None = None
    calls: list[CallIn] | None = None
    answer: str | None = None
    type: Literal["list_tools", "call_tool"] | None = None
    tool_name: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    generation: GenerationIn | None = None
    timeout_s: float | None = Field(default=None, gt=0, le=MAX_TURN_SECONDS)
    metadata: dict[str, Any] = Field(default_factory=dict, description="ignored")


def opened_row(player: Player, opened: EpisodeOpened) -> dict[str, Any]:
    """A new episode as a reset is answered."""
    facts = {"episode_id": player.name, "episode": opened.id, "member": opened.member, "turn": opened.turn}
    return {"observation": opened.observation, "reward": None, "done": False, "metadata": facts | opened.info}


def step_row(player: Player, done: StepDone, observation: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A turn as a step is answered."""
    facts = {
        "episode_id": player.name,
        "episode": done.episode,
        "turn": done.turn,
        "rewards": done.rewards,
        "terminated": done.terminated,
        "truncated": done.truncated,
    }
    return {
        "observation": dict(observation or done.observation),
        "reward": done.reward,
        "done": done.terminated or done.truncated,
        "metadata": facts | done.info,
    }


def tool_rows(player: Player, schema: str) -> list[dict[str, Any]]:
    """The tools of the episode; `schema` is the dialect's name for the arguments' JSON Schema."""
    return [
        {"name": tool.name, "description": tool.description, schema: dict(tool.parameters)} for tool in player.tools
    ]


async def play(player: Player, values: Mapping[str, Any], timeout_s: float | None = None) -> dict[str, Any]:
    """The answer to a step with these action fields. Raises WireError as `Player.step` does."""
    action = read(ActionIn, dict(values))
    if action.type == "list_tools":
        await player.ensure()
        rows = tool_rows(player, "input_schema")
        return {"observation": {"tools": rows}, "reward": None, "done": player.done, "metadata": {}}
    if action.type == "call_tool":
        name = action.tool_name or ""
        try:
            called = await player.call_tool(name, action.arguments)
        except UnknownName as error:
            lost = {"error_type": "tool_not_found", "message": str(error)}
            shown: dict[str, Any] = {"tool_name": name, "result": None, "error": lost}
            return {"observation": shown, "reward": None, "done": player.done, "metadata": {}}
        return step_row(player, called.step, {"tool_name": name, "result": called.text, "error": None})
    fields = {"text": action.text, "answer": action.answer}
    given: dict[str, Any] = {key: value for key, value in fields.items() if value is not None}
    if action.calls is not None:
        given |= {"calls": [call.model_dump() for call in action.calls]}
    done = await player.step(given, timeout_s=action.timeout_s or timeout_s, generation=action.generation)
    return step_row(player, done)


async def state_of(player: Player) -> dict[str, Any]:
    """The answer to `state`: OpenEnv's two fields, and the hub's own. Raises WireError."""
    own = await player.state()
    return own | {"episode_id": player.name, "step_count": player.turn, "reward_so_far": player.reward}


def refused(error: UserError) -> web.Response:
    """An error of a route, as FastAPI says it; `code` is the hub's own."""
    row = boundary(error)
    detail: Any = row.message
    if row.code == "invalid" and isinstance(row.detail, list):
        detail = [
            {"loc": ["body", *it["field"].split(".")], "msg": it["problem"], "type": "value_error"} for it in row.detail
        ]
    headers = {"Retry-After": str(retry_after_s(row))} if row.status in (429, 503) else {}
    return web.Response(
        body=dumps({"detail": detail, "code": row.code}), status=row.status, content_type=JSON, headers=headers
    )
