"""OpenEnv's native server with an environment that echoes: `openenv_server.py PORT`, one uvicorn worker."""

from __future__ import annotations

import sys

import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app


class Said(Action):
    """What is told."""

    message: str


class Heard(Observation):
    """What is shown."""

    text: str


class Echo(Environment):
    """Shows its message and pays for the first; nothing is kept but a count."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._state = State(episode_id=None, step_count=0)

    def reset(self, seed: int | None = None, episode_id: str | None = None) -> Heard:
        self._state = State(episode_id=episode_id, step_count=0)
        return Heard(text="", done=False, reward=None)

    def step(self, action: Said, timeout_s: float | None = None) -> Heard:
        self._state.step_count += 1
        return Heard(text=action.message, done=False, reward=0.1 if self._state.step_count == 1 else 0.0)

    @property
    def state(self) -> State:
        return self._state


if __name__ == "__main__":
    app = create_fastapi_app(Echo, Said, Heard, max_concurrent_envs=4096)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
