"""The training loop: rollout -> filter -> credit -> correction -> loss -> optimiser -> weight sync, update by update.

Everything it joins is handed in, so that a fake hub trains as well as a real one. State is whole only between two
updates; that is where checkpoints are taken and where an interrupted run goes on.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import torch

from agenthub.errors import UserError
from agenthub.records import Trajectory
from agenthub.trainers.batch import build_batch
from agenthub.trainers.checkpoint import Checkpoints
from agenthub.trainers.controls import shuffle_rewards
from agenthub.trainers.corrections import NoCorrection
from agenthub.trainers.evaluate import Evaluation, Rollouts, evaluate
from agenthub.trainers.filters import apply
from agenthub.trainers.flow import Collects, Flow
from agenthub.trainers.folder import RunFolder
from agenthub.trainers.lead import Leader
from agenthub.trainers.learner import Learner, UpdateStats
from agenthub.trainers.ledger import Ledger
from agenthub.trainers.mechanisms import is_suffix, mechanism_metrics
from agenthub.trainers.metrics import Seconds, correction_metrics, rollout_metrics
from agenthub.trainers.plugins import Correction, Credit, Filter, Measures, Remembers, Shaping, needs_of
from agenthub.trainers.samplers import Sampler
from agenthub.trainers.types import Batch, Doubles

__all__ = ["Collects", "Parts", "Pushes", "Reporter", "Trainer"]

T = TypeVar("T")
QUICK_SAVE_S = 0.3
"""A checkpoint that takes longer is not taken on the way out, so that a stop stays short."""


class Pushes(Protocol):
    """A weight sync."""

    async def push(self, model: Any, version: int) -> float:
        """Serve the model's weights as `version`; the largest difference of a log-probability afterwards."""


class Reporter(Protocol):
    """Who watches a run."""

    def note(self, text: str) -> None:
        """Something a person should know."""

    def update(self, row: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl: an update is done."""

    def evaluation(self, update: int, evaluation: Evaluation) -> None:
        """An evaluation after `update` updates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the loop joins."""

    collector: Callable[[], Collects]
    """Makes one for each group that is played by itself."""
    evaluator: Rollouts | None
    """Plays held-out tasks; None where nothing is evaluated."""
    held_out: Sequence[str]
    sampler: Sampler
    filter: Filter
    credit: Credit
    learner: Learner | Leader
    sync: Pushes
    correction: Correction = field(default_factory=NoCorrection)
    shaping: Sequence[Shaping] = ()
    serving: Callable[[], int] | None = None
    """Version of the weights that serve now; None where pushes alone change it."""
    decode: Callable[[Sequence[int]], str] | None = None
    """Text of token ids, for messages."""


class Trainer:
    """One run in one folder."""

    def __init__(self, parts: Parts, folder: RunFolder, reporter: Reporter) -> None:
        self._parts, self._folder, self._reporter = parts, folder, reporter
        self._recipe = folder.recipe
        self._checkpoints = Checkpoints(folder.path / "checkpoints", self._recipe.keep_checkpoints)
        self._flow = Flow(
            parts.collector,
            parts.sampler,
            Ledger(folder.path / "ledger.sqlite"),
            suite=self._recipe.suite,
            groups=self._recipe.rollout.groups,
            group_size=self._recipe.rollout.group_size,
            seed=self._recipe.seed,
            bound=self._recipe.staleness,
            serving=parts.serving,
            decode=parts.decode,
        )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="learner")
        self._stop = threading.Event()
        self._saved = -1
        self._save_s = 0.0
        self._whole: dict[str, Any] | None = None
        """Sampler, credit and flow where the weights are those of a finished update, so that they may be saved."""
        self.done = 0
        """Updates done."""

    async def run(self) -> None:
        """Train until `updates` are done, from the newest checkpoint where there is one.

        Cancelled, it saves what is whole, leaves the folder fit to resume, and raises.

        Raises:
            UserError, HostFault, HubUnreachable: as the parts raise them; the folder stays fit to resume.
        """
        try:
            await self._begin()
            while self.done < self._recipe.updates:
                await self._update(self.done + 1)
                await self._evaluate_if_due()
                self._boundary()
        except asyncio.CancelledError:
            self._save_on_the_way_out()
            raise
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)
            await asyncio.shield(self._flow.close())

    async def _update(self, number: int) -> None:
        """One update, in the order of the design."""
        parts, seconds = self._parts, Seconds()
        trajectories = await self._flow.next(number)
        self._whole = None
        earlier = parts.sampler.replay(trajectories)
        batch = self._batch([*trajectories, *earlier], number)
        with seconds.of("update"):
            filtered = apply(parts.filter, parts.credit, batch)
            batch = await self._in_thread(lambda: self._prepare(batch.with_filter(filtered), number))
            advantage = parts.credit.advantage(batch)
            batch = replace(batch, advantages=advantage)
            stats = await self._in_thread(lambda: self._learn(batch, advantage, number))
            parts.sampler.observe(batch)
            if isinstance(parts.credit, Remembers):
                parts.credit.observe(batch)
        with seconds.of("sync"):
            parity = await parts.sync.push(parts.learner.model, number)
        self._folder.trajectories(number, trajectories)
        episodes = [trajectory for trajectory in trajectories if not is_suffix(trajectory)]
        played = rollout_metrics(episodes, batch, filtered.reasons) | mechanism_metrics(trajectories, batch)
        self._report(number, played, stats, parity, seconds)
        self.done = number

    def _batch(self, trajectories: Sequence[Trajectory], number: int) -> Batch:
        scored = [trajectory for trajectory in trajectories if trajectory.reward is not None]
        if not scored:
            raise UserError(f"update {number}: no trajectory carries a reward: {trajectories[0].reason or 'no reason'}")
        batch = build_batch(scored)
        shuffled = self._recipe.controls.shuffle_rewards
        batch = shuffle_rewards(batch, seed=self._seed(number)) if shuffled else batch
        for shaping in self._parts.shaping:
            batch = replace(batch, rewards=batch.rewards + shaping.component(batch))
        return batch

    def _prepare(self, batch: Batch, number: int) -> Batch:
        """The batch as the update's first weights see it."""
        learner = self._parts.learner
        return learner.scored(learner.with_old_logprobs(batch, version=number - 1), needs_of(self._parts.credit))

    def _learn(self, batch: Batch, advantage: Doubles, number: int) -> UpdateStats:
        learner, credit = self._parts.learner, self._parts.credit
        learner.schedule(number, self._recipe.updates)
        weights, keep = self._parts.correction.weights(batch)
        kept = replace(batch, in_loss=batch.in_loss & keep)
        stats = learner.update(kept, advantage, weights=weights, seed=self._seed(number), stop=self._stop)
        metrics = {**stats.metrics, **correction_metrics(batch, weights, keep), **learner.fit_critic(batch, credit)}
        metrics |= credit.metrics(batch) if isinstance(credit, Measures) else {}
        return replace(stats, metrics=metrics)

    def _seed(self, number: int) -> int:
        return self._recipe.seed * 1_000_003 + number

    def _report(
        self, number: int, played: Mapping[str, Any], stats: UpdateStats, parity: float, seconds: Seconds
    ) -> None:
        collected = self._flow.stats
        seconds.add("rollout", collected.generate_s)
        seconds.add("environment", collected.environment_s)
        if self._recipe.staleness:
            seconds.add("waited", self._flow.waited_s)
        row = {
            "update": number,
            "entropy": stats.entropy,
            **played,
            "loss": stats.loss,
            "grad_norm": stats.grad_norm,
            **stats.metrics,
            "steps": stats.steps,
            "skipped": stats.skipped,
            "learning_rate": self._parts.learner.learning_rate,
            "parity_error": parity,
            "replayed": collected.replayed,
            **({"forks_refused": collected.refused} if collected.refused else {}),
            "tokens_per_s": round(collected.tokens / max(sum(seconds.spent.values()), 1e-9), 1),
            "seconds": seconds.row(),
            "weight_version": number,
        }
        self._folder.metrics(row)
        self._reporter.update(row)

    async def _begin(self) -> None:
        """Take up the newest checkpoint, or start with an evaluation; the policy serves the learner's weights after."""
        checkpoint, broken = self._checkpoints.latest()
        for text in broken:
            self._reporter.note(text)
        self._folder.cut(checkpoint.sizes if checkpoint else {})
        started = 0
        if checkpoint:
            self.done = self._saved = checkpoint.update
            self._parts.learner.load_state_dict(checkpoint.state["learner"])
            self._parts.sampler.load_state_dict(checkpoint.state["sampler"])
            if isinstance(self._parts.credit, Remembers):
                self._parts.credit.load_state_dict(checkpoint.state["credit"])
            torch.set_rng_state(checkpoint.state["torch_rng"])
            started = int(checkpoint.state["started"])
            self._reporter.note(f"goes on after update {self.done}")
        await self._parts.sync.push(self._parts.learner.model, self.done)
        if not checkpoint:
            await self._evaluate()
        self._flow.begin(self.done, started)
        self._whole = self._drawn()
        if not checkpoint:
            self._save(self._whole)

    def _drawn(self) -> dict[str, Any]:
        """What the next draws of tasks and their credit depend on."""
        credit = self._parts.credit
        remembered = {"credit": credit.state_dict()} if isinstance(credit, Remembers) else {}
        return {"sampler": self._parts.sampler.state_dict(), "started": self._flow.started, **remembered}

    async def _evaluate_if_due(self) -> None:
        wanted = self._recipe.eval
        if wanted and (self.done == self._recipe.updates or (wanted.every and self.done % wanted.every == 0)):
            await self._evaluate()

    async def _evaluate(self) -> None:
        wanted, evaluator = self._recipe.eval, self._parts.evaluator
        if wanted is None or evaluator is None:
            return
        started = time.perf_counter()
        evaluation, _ = await evaluate(
            evaluator,
            self._recipe.suite,
            self._parts.held_out,
            k=wanted.k,
            seed=self._recipe.seed,
            label=f"eval{self.done}",
        )
        seconds = {"evaluation": round(time.perf_counter() - started, 4)}
        self._folder.metrics({"update": self.done, "eval": evaluation.row(), "seconds": seconds})
        self._reporter.evaluation(self.done, evaluation)

    def _boundary(self) -> None:
        self._flow.advance(self.done)
        self._whole = self._drawn()
        if self.done % self._recipe.checkpoint_every == 0 or self.done == self._recipe.updates:
            self._save(self._whole)

    def _save(self, drawn: Mapping[str, Any]) -> None:
        started = time.perf_counter()
        state = {
            "learner": self._parts.learner.state_dict(),
            **drawn,
            "torch_rng": torch.get_rng_state(),
        }
        self._checkpoints.save(self.done, state, self._folder.sizes())
        self._flow.covered(self.done)
        self._saved, self._save_s = self.done, time.perf_counter() - started

    def _save_on_the_way_out(self) -> None:
        if self._whole is not None and self._saved != self.done and self._save_s <= QUICK_SAVE_S:
            self._save(self._whole)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run torch work beside the event loop; a cancellation stops it between two minibatches and waits for that."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._stop.set()
            await asyncio.wait([future])
            future.exception()
            raise
