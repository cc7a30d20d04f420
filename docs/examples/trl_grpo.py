"""TRL 1.16's GRPOTrainer on episodes of a hub: `python trl_grpo.py http://127.0.0.1:8700 CHAT_MODEL [UPDATES]`."""

import sys

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from agenthub.client import BlockingHub
from agenthub.wire import Action, CallIn

HUB = BlockingHub(sys.argv[1])


class Episode:
    """One episode at a time; its public methods are the tools that the model may call."""

    def reset(self, seed: int, **_: object) -> str:
        # A group's members have one row, so its seed draws them the same task.
        (self._episode,) = HUB.create("arithmetic_turns", seed=seed, split="train")
        self._reward: float | None = 0.0
        return str(self._episode.observation["messages"][-1]["content"])

    def python(self, code: str) -> str:
        """Runs Python code in an interpreter whose state lasts, and shows what came of it.

        Args:
            code: Python source of any number of lines.
        """
        return self._step(Action(text=None, calls=[CallIn(tool="python", arguments={"code": code})]))

    def submit_answer(self, answer: str) -> str:
        """Gives the final answer.

        Args:
            answer: The number.
        """
        return self._step(Action(text=None, calls=None, answer=answer))

    def get_reward(self) -> float | None:
        if not self._episode.done:
            self._step(Action(text="", calls=None))  # the model stopped without an answer: a turn without a call
        self._episode.close()
        return self._reward

    def _step(self, action: Action) -> str:
        if self._episode.done:
            return "The episode has ended."
        done = self._episode.step(action)
        # None where the hub failed, and never 0: TRL leaves such a rollout out.
        self._reward = None if done.reward is None or self._reward is None else self._reward + done.reward
        return str(done.observation["text"]) or "The answer was taken."


rows = {"prompt": [[{"role": "user", "content": "Work out: "}]] * 64, "seed": list(range(64))}
run = {"num_generations": 4, "per_device_train_batch_size": 4, "max_completion_length": 256, "bf16": False}
run |= {"max_tool_calling_iterations": 3, "max_steps": int((sys.argv[3:] or [200])[0]), "report_to": "none"}
options = GRPOConfig("trl_grpo", logging_steps=1, save_strategy="no", **run)
GRPOTrainer(sys.argv[2], args=options, train_dataset=Dataset.from_dict(rows), environment_factory=Episode).train()
HUB.close()
