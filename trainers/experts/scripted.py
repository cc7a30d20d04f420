"""Scripts become trajectories with tokens: their texts are played on the hub, through the renderer of the policy.

Everything but the sampling is the collector's own: prompts are extended by ids, an action is cut where it is complete,
the hub shows what it shows and the verifier says what it was worth. A script's tokens carry log-probability 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agenthub.client import Hub
from agenthub.policy import Request, Sampling
from agenthub.records import Finish, Generation, Observation, Text, Trajectory, floats, ints
from agenthub.renderer import Renderer
from agenthub.renderers.safe import HFTokenizer, Seams
from agenthub.rollout import Collector, Play, Seat
from agenthub.trainers.experts.library import Script
from agenthub.trainers.types import EXPERT

__all__ = ["ScriptPlayer", "Writer"]


class Writer:
    """Writes a turn's text as ids of the policy's vocabulary, as if the policy had sampled it."""

    def __init__(self, tokenizer: HFTokenizer, renderer: Renderer, *, native: bool) -> None:
        """
        Args:
            native: calls are written in the model's own tool-call syntax, whose marks are control tokens.
        """
        self._tokenizer, self._renderer, self._native = tokenizer, renderer, native
        self._seams = Seams(tokenizer)
        shown = (Observation(call_id="0.0", parts=(Text(text="0"),)),)
        open_, ended = renderer.extend(shown, ended=False), renderer.extend(shown, ended=True)
        self._end = open_[: open_.size - ended.size].tolist()

    def ids(self, text: str) -> list[int]:
        """The turn's tokens; the end of the turn is one of them unless the action completes it by itself."""
        ids = self._tokenizer.encode(text, add_special_tokens=False) if self._native else self._seams.plain(text)
        return ids if self._renderer.complete(ids) else [*ids, *self._end]


class _Nobody:
    """The policy of a collector that asks none."""

    name = EXPERT
    lockstep = True

    async def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Never asked."""
        raise NotImplementedError(f"{len(requests)} turns were to be sampled by a script")

    def weight_version(self) -> int:
        """What the hub is told of turns without tokens."""
        return 0

    async def forget(self, episodes: Sequence[str]) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing to free."""


class ScriptPlayer(Collector):
    """A collector whose turns come from scripts."""

    def __init__(self, hub: Hub, tokenizer: HFTokenizer, renderer: Renderer, *, native: bool) -> None:
        super().__init__(hub, _Nobody(), renderer, sampling=Sampling(), native_calls=native)
        self._writer = Writer(tokenizer, renderer, native=native)
        self._scripts: Mapping[str, Script] = {}

    async def play(self, scripts: Mapping[str, Script]) -> dict[str, Trajectory]:
        """Play a script under each group name; the trajectories by group.

        Raises:
            HostFault, HubUnreachable, WireError: as `Collector.collect` raises them.
        """
        self._scripts = scripts
        plays = []
        for group, script in scripts.items():
            suite, _, task = script.task.partition("/")
            plays.append(Play(suite=suite, task=task, count=1, group=group))
        return {one.group: one for one in await self.collect(plays, seed=0)}

    async def _generate(self, seats: Sequence[Seat], seed: int) -> list[Generation]:
        """The next turn of each seat's script; nothing where it is spent or the context is full."""
        return [self._next(seat) for seat in seats]

    def _next(self, seat: Seat) -> Generation:
        texts, place = self._scripts[seat.play.group].texts, len(seat.turns)
        wanted = self._writer.ids(texts[place]) if place < len(texts) else []
        room = max(0, seat.max_tokens - len(seat.prompt))
        ids = wanted[:room]
        return Generation(
            policy=EXPERT,
            prompt_ids=ints(seat.prompt),
            ids=ints(ids),
            logprobs=floats([0.0] * len(ids)),
            versions=((0, 0),) if ids else (),
            finish=Finish.STOP if ids == wanted else Finish.LENGTH,
        )
