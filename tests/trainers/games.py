"""A game of two turns played by a tiny model without a hub, and a recipe's stages run over it one after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from agenthub.policy import Request, Sampling
from agenthub.records import Stop, Trajectory, floats, frozen, ints
from agenthub.rollout import turn_seed
from agenthub.trainers.batch import build_batch
from agenthub.trainers.config import Recipe
from agenthub.trainers.critic import Critic
from agenthub.trainers.experts.library import Library, as_expert
from agenthub.trainers.learner import Learner
from agenthub.trainers.plugins import Measures, Remembers, needs_of
from agenthub.trainers.scoring import Models
from tests.trainers.fakes import ANSWER, CODE, PROSE, FakePolicy, tiny_model, trajectory

__all__ = ["Game", "Run"]

TASKS = ("easy-0", "easy-1", "hard-0", "hard-1")


class Game:
    """First a call (token 0 to 7 fails it, 22 and 23 make it void), then an answer: an even token wins."""

    def __init__(self, policy: FakePolicy, *, cuts: bool = False, says: bool = False) -> None:
        """`cuts`: an answer of token 16 to 19 runs into a limit. `says`: every answer states a confidence."""
        self.policy, self.cuts, self.says = policy, cuts, says

    async def play(self, tasks: list[str], members: int, number: int) -> list[Trajectory]:
        """`members` episodes of each task."""
        rows = [(place, task, member) for place, task in enumerate(tasks) for member in range(members)]
        first = await self._sample([(f"u{number}/{p}", m, 0, [2 + sum(t.encode()) % 9, 5, 6]) for p, t, m in rows])
        prompts = []
        for one in first:
            call = int(one.ids[0])
            prompts.append([*one.prompt_ids.tolist(), *one.ids.tolist(), 3 if call < 8 else 4, 6])
        second = await self._sample(
            [(f"u{number}/{p}", m, 1, prompt) for (p, _, m), prompt in zip(rows, prompts, strict=True)]
        )
        return [self._ended(number, *who, a, b) for who, a, b in zip(rows, first, second, strict=True)]

    async def _sample(self, rows: list[tuple[str, int, int, list[int]]]) -> list[Any]:
        return await self.policy.generate(
            [
                Request(
                    prompt_ids=ints(prompt),
                    sampling=Sampling(max_tokens=2),
                    seed=turn_seed(0, group, member, t),
                    stop_ids=frozenset(),
                    complete=lambda ids: False,
                )
                for group, member, t, prompt in rows
            ]
        )

    def _ended(self, number: int, place: int, task: str, member: int, a: Any, b: Any) -> Trajectory:
        call, answer = int(a.ids[0]), int(b.ids[0])
        failed, void = call < 8, call >= 22
        reward = float(answer % 2 == 0 and not void)
        sure = f"<confidence>0.{answer % 10}</confidence> " if self.says else ""
        texts = (PROSE if void else CODE, f"{sure}{ANSWER}")
        base = trajectory(texts, reward=reward, turn_rewards=[0.0 if failed or void else 0.5], member=member)
        turns = []
        for index, (one, generation) in enumerate(zip(base.turns, (a, b), strict=True)):
            entropies = floats([1.0 + (place + member + index) % 3, 0.5])
            observations = tuple(replace(o, failed=failed) for o in one.observations)
            turns.append(replace(one, generation=replace(generation, entropies=entropies), observations=observations))
        role = frozen({"role": ("spy", "detective")[TASKS.index(task) % 2]})
        made = replace(base, task=f"suite/{task}", group=f"u{number}/{place}", turns=tuple(turns), metadata=role)
        return replace(made, stop=Stop.OUT_OF_TOKENS) if self.cuts and 16 <= answer < 20 else made


def oracle(task: str) -> Trajectory:
    """A trajectory that wins a task, as an expert of it."""
    calls, answer = [10, 11], [2, 3]
    opening = [2 + sum(task.encode()) % 9, 5, 6]
    base = trajectory((CODE, ANSWER), reward=1.0, turn_rewards=[0.5])
    turns = []
    for one, prompt, ids in zip(base.turns, (opening, [*opening, *calls, 4, 6]), (calls, answer), strict=True):
        assert one.generation is not None
        generation = replace(one.generation, prompt_ids=ints(prompt), ids=ints(ids), logprobs=floats([-0.5, -0.5]))
        turns.append(replace(one, generation=generation))
    return replace(base, task=f"suite/{task}", turns=tuple(turns))


class Run:
    """A recipe's stages in the order of the loop, on the game."""

    def __init__(self, recipe: Recipe, *, lie: float = 0.0) -> None:
        self.recipe = recipe
        self.policy = FakePolicy()
        self.policy.lie = lie
        shaped = {part.uses for part in recipe.shaping}
        self.game = Game(self.policy, cuts=recipe.filter.uses == "overlong", says="rlcr" in shaped)
        model = tiny_model()
        self.filter, self.credit, self.correction = (
            part.make() for part in (recipe.filter, recipe.credit, recipe.correction)
        )
        self.sampler = recipe.sampler.make().start(TASKS, 0)
        critic = Critic(model.config.hidden_size, recipe.critic, torch.device("cpu")) if recipe.critic else None
        beside = Models(
            reference=tiny_model(1) if recipe.reference != "none" else None,
            teacher=tiny_model(2) if recipe.teacher else None,
            critic=critic,
        )
        optim = recipe.optim.model_copy(update={"lr": 0.02, "eps": 1e-8, "minibatches": 2, "epochs": 2})
        regularisers = [part.make() for part in recipe.regularise]
        self.learner = Learner(model, recipe.loss.make(), optim, regularisers=regularisers, beside=beside)
        self.metrics: list[dict[str, float]] = []
        self.tasks: list[str] = []
        self.library = Library()
        if recipe.experts is not None and recipe.experts.source == "oracle":
            for task in TASKS:
                self.library.add(oracle(task))
        self.seen: dict[str, float] = {}

    async def update(self, number: int) -> None:
        """Play, filter, give credit, correct, learn, and serve the new weights."""
        drawn = self.sampler.next(4)
        self.tasks += drawn
        fresh = await self.game.play(drawn, 4, number)
        earlier = self.sampler.replay(fresh)
        experts = self._experts(fresh)
        if self.recipe.experts is not None and self.recipe.experts.only:
            fresh = []
        batch = build_batch([*fresh, *experts, *earlier])
        for part in self.recipe.shaping:
            batch = replace(batch, rewards=batch.rewards + part.make().component(batch))
        filtered = self.filter.apply(batch)
        batch = self.learner.with_old_logprobs(batch.with_filter(filtered), version=number - 1)
        batch = self.learner.scored(batch, needs_of(self.credit))
        batch = replace(batch, advantages=self.credit.advantage(batch))
        weights, keep = self.correction.weights(batch)
        self.learner.schedule(number, 3)
        assert batch.advantages is not None
        stats = self.learner.update(
            replace(batch, in_loss=batch.in_loss & keep), batch.advantages, weights=weights, seed=number
        )
        told = self.credit.metrics(batch) if isinstance(self.credit, Measures) else {}
        self.metrics.append({**stats.metrics, **self.learner.fit_critic(batch, self.credit), **told})
        self.sampler.observe(batch)
        if isinstance(self.credit, Remembers):
            self.credit.observe(batch)
        self.policy.load_state(self.learner.model.state_dict(), number)
        self.seen = {
            "earlier": len(earlier),
            "experts": len(experts),
            "reasons": len(filtered.reasons),
            "steps": stats.steps,
            "advantages": float(np.unique(np.round(batch.advantages, 6)).size),
            "weighed": float((weights != 1.0).sum()),
            "tokens_dropped": float((~keep).sum()),
        }

    def _experts(self, fresh: list[Trajectory]) -> list[Trajectory]:
        """Beside each group, from the library; what the run itself has solved joins that afterwards."""
        config = self.recipe.experts
        if config is None:
            return []
        found = []
        for place, (group, task) in enumerate({one.group: one.task for one in fresh}.items()):
            rows = self.library.pick(task if config.match == "task" else None, config.per_group, place)
            found += [as_expert(row, group, 100 + n) for n, row in enumerate(rows) if isinstance(row, Trajectory)]
        if config.source == "own":
            for one in fresh:
                if one.rewards.get("outcome") == 1.0:
                    self.library.add(one)
        return found

    def weights(self) -> torch.Tensor:
        """All of the model's, flat."""
        return torch.cat([parameter.detach().flatten() for parameter in self.learner.model.parameters()])
