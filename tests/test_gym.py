"""The Gymnasium environments against a real hub in a process of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from agenthub.gym import EpisodeEnv, EpisodeVectorEnv, register
from tests.served import served

SUITE = """
schema: agenthub.suite/1
suite: {name: small, version: "1", description: Two sums., license: Apache-2.0}
defaults:
  protocol: fence_strict
  tools: [{name: python, uses: python}]
  verifier: {checks: [{id: answer, uses: exact}]}
tasks:
  - {id: a, prompt: {user: "1+1"}, target: {answer: "2"}}
  - {id: b, prompt: {user: "2+2"}, target: {answer: "4"}}
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("gym")
    (folder / "small.yaml").write_text(SUITE)
    with served(folder / "small.yaml", folder) as url:
        yield url


def test_the_environment_passes_gymnasiums_checker(hub: str) -> None:
    register()
    env = gymnasium.make("agenthub/Episode-v0", suite="small", hub=hub)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_env(env.unwrapped, skip_render_check=True)
    finally:
        env.close()


def test_an_episode_of_two_turns(hub: str) -> None:
    env = EpisodeEnv(suite="small", hub=hub, render_mode="ansi")
    try:
        question, info = env.reset(options={"task": "b"})
        assert "2+2" in question
        assert info["task"] == "b"
        shown, reward, terminated, truncated, _ = env.step("```python\nprint(2+2)\n```")
        assert "4" in shown
        assert (reward, terminated, truncated) == (0.0, False, False)
        _, reward, terminated, truncated, info = env.step("\\boxed{4}")
        assert (reward, terminated, truncated, info["stop"]) == (1.0, True, False, "answered")
    finally:
        env.close()


def test_the_same_seed_draws_the_same_task(hub: str) -> None:
    env = EpisodeEnv(suite="small", hub=hub)
    try:
        assert env.reset(seed=3)[0] == env.reset(seed=3)[0]
    finally:
        env.close()


def test_a_vector_of_episodes_starts_again_after_each_end(hub: str) -> None:
    register()
    made = gymnasium.make_vec("agenthub/Episode-v0", num_envs=3, suite="small", hub=hub)
    env = made.unwrapped
    assert isinstance(env, EpisodeVectorEnv)
    try:
        texts, _ = env.reset(seed=5)
        assert len(texts) == 3
        assert env.observation_space.contains(texts)
        answers = ["\\boxed{2}" if "1+1" in text else "\\boxed{4}" for text in texts]
        _, rewards, terminated, _, infos = env.step(answers)
        assert rewards.tolist() == [1.0, 1.0, 1.0]
        assert terminated.all()
        assert [info["stop"] for info in infos["episodes"]] == ["answered"] * 3
        fresh, rewards, terminated, _, _ = env.step(["ignored"] * 3)
        assert all("+" in text for text in fresh)
        assert not np.any(terminated)
        assert rewards.tolist() == [0.0, 0.0, 0.0]
    finally:
        env.close()
