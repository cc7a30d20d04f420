"""Gymnasium: an episode as a registered environment, and groups of them as a vector environment.

`gymnasium.make("agenthub/Episode-v0", suite="arithmetic")` plays on a hub that it starts itself or on `hub=URL`.
Actions and observations are text; a group of members on one task is a vector environment.
"""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.vector.utils import batch_space

from agenthub.client import BlockingHub
from agenthub.wire import Action

__all__ = ["EpisodeEnv", "EpisodeVectorEnv", "register"]

_CHARACTERS = "".join(chr(code) for code in range(32, 127)) + "\n\t"
_LONGEST = 1 << 16


def _space() -> gymnasium.spaces.Text:
    return gymnasium.spaces.Text(min_length=0, max_length=_LONGEST, charset=_CHARACTERS)


def _clean(text: str) -> str:
    """Text within the space: other characters as backslash escapes, at most 64 Ki characters."""
    keep = set(_CHARACTERS)
    safe = "".join(c if c in keep else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)
    return safe[:_LONGEST]


class EpisodeEnv(gymnasium.Env[str, str]):
    """One episode at a time, on a hub.

    `reset(seed=s)` draws the task that the hub gives for seed s; `options={"task": id}` names one. `terminated` and
    `truncated` mean what Gymnasium means by them. A reward that the hub could not give (`infra_fault`) raises nothing:
    it is NaN, and `info["outcome"]` says why, so that it is never taken for a 0.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"]}  # noqa: RUF012 - gymnasium reads a class attribute

    def __init__(self, suite: str, hub: str, split: str | None = None, render_mode: str | None = None) -> None:
        self.suite, self.split, self.render_mode = suite, split, render_mode
        self.observation_space = _space()
        self.action_space = _space()
        self._hub = BlockingHub(hub)
        self._episode: Any = None
        self._turn_text = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._end()
        task = (options or {}).get("task")
        draw = None if task is not None else int(self.np_random.integers(1 << 31))
        (self._episode,) = self._hub.create(self.suite, task=task, seed=draw, split=self.split)
        opened = self._episode.observation
        self._turn_text = "\n\n".join(message["content"] for message in opened["messages"])
        return _clean(self._turn_text), dict(self._episode.info)

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        done = self._episode.step(Action(text=str(action)))
        self._turn_text = done.observation["text"]
        reward = float("nan") if done.reward is None else float(done.reward)
        return _clean(self._turn_text), reward, done.terminated, done.truncated, dict(done.info)

    def render(self) -> str | None:
        return self._turn_text if self.render_mode == "ansi" else None

    def close(self) -> None:
        self._end()
        self._hub.close()

    def _end(self) -> None:
        if self._episode is not None:
            self._episode.close()
            self._episode = None


class EpisodeVectorEnv(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """`num_envs` episodes of a suite, stepped together over one connection; next-step autoreset as in Gymnasium 1.x."""

    def __init__(self, suite: str, hub: str, num_envs: int, split: str | None = None) -> None:
        self.num_envs, self.suite, self.split = num_envs, suite, split
        self.metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}
        self.single_observation_space = _space()
        self.single_action_space = _space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._hub = BlockingHub(hub)
        self._episodes: list[Any] = [None] * num_envs
        self._over = np.zeros(num_envs, dtype=np.bool_)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        super().reset(seed=seed if isinstance(seed, int) else None)
        given = seed if isinstance(seed, list) else [None] * self.num_envs
        seeds = [int(self.np_random.integers(1 << 31)) if one is None else one for one in given]
        texts = [self._open(index, one) for index, one in enumerate(seeds)]
        return tuple(texts), {}

    def step(self, actions: Any) -> tuple[tuple[str, ...], Any, Any, Any, dict[str, Any]]:
        texts: list[str] = [""] * self.num_envs
        rewards = np.zeros(self.num_envs, dtype=np.float64)
        terminated, truncated = np.zeros((2, self.num_envs), dtype=np.bool_)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        playing = [index for index in range(self.num_envs) if not self._over[index]]
        answers = self._hub.step_all([(self._episodes[index], Action(text=str(actions[index]))) for index in playing])
        for index, done in zip(playing, answers, strict=True):
            texts[index] = _clean(done.observation["text"])
            rewards[index] = np.nan if done.reward is None else done.reward
            terminated[index], truncated[index], infos[index] = done.terminated, done.truncated, dict(done.info)
        for index in np.flatnonzero(self._over).tolist():
            texts[index] = self._open(index, int(self.np_random.integers(1 << 31)))
        self._over = terminated | truncated
        return tuple(texts), rewards, terminated, truncated, {"episodes": infos}

    def close(self, **_kwargs: Any) -> None:
        for episode in self._episodes:
            if episode is not None:
                episode.close()
        self._hub.close()

    def _open(self, index: int, seed: int) -> str:
        if self._episodes[index] is not None:
            self._episodes[index].close()
        (self._episodes[index],) = self._hub.create(self.suite, seed=seed, split=self.split)
        return _clean("\n\n".join(message["content"] for message in self._episodes[index].observation["messages"]))


def register() -> None:
    """Register `agenthub/Episode-v0` with Gymnasium; calling it again changes nothing."""
    if "agenthub/Episode-v0" not in gymnasium.registry:
        gymnasium.register(
            id="agenthub/Episode-v0",
            entry_point="agenthub.gym:EpisodeEnv",
            vector_entry_point="agenthub.gym:EpisodeVectorEnv",
            disable_env_checker=True,
        )
