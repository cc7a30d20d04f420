"""A run put together: a recipe's parts, the hub, the policy, the folder; then the loop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from agenthub.client import Hub
from agenthub.config import load_yaml
from agenthub.errors import UserError
from agenthub.policies.embedded import TINY, EmbeddedPolicy, load_model
from agenthub.policies.openai import OpenaiPolicy
from agenthub.policies.vllm_server import check_model
from agenthub.policy import Policy, Sampling
from agenthub.registry import registry
from agenthub.renderer import Renderer
from agenthub.rollout import Collector, Strategy
from agenthub.trainers.adapters import LoraConfig, add_adapters, merged
from agenthub.trainers.building import learner_for, ranks_of
from agenthub.trainers.canaries import CANARIES, Canaries
from agenthub.trainers.checkpoint import Checkpoints
from agenthub.trainers.config import Recipe
from agenthub.trainers.critic import Critic
from agenthub.trainers.evaluate import Evaluation, evaluate
from agenthub.trainers.experts.beside import Experts, open_experts
from agenthub.trainers.flow import Collects
from agenthub.trainers.folder import RunFolder
from agenthub.trainers.hardware import device_of, set_up
from agenthub.trainers.hub import hub_of, protocol_of, task_ids
from agenthub.trainers.lead import dismissed, follow
from agenthub.trainers.learner import Learner
from agenthub.trainers.loop import Parts, Reporter, Trainer
from agenthub.trainers.ranks import ALONE, Ranks
from agenthub.trainers.refill import Refill
from agenthub.trainers.rollouts import bind
from agenthub.trainers.scoring import Models as BesideModels
from agenthub.trainers.serving import Models, Serving, serving

__all__ = [
    "Held",
    "Models",
    "evaluate_policy",
    "following",
    "load_models",
    "load_policy",
    "ranks_of",
    "renderer_for",
    "train",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What an evaluation plays."""

    suite: str
    split: str
    tasks: int
    """The first ones of the split."""
    k: int
    """Episodes on each."""
    seed: int = 0


def load_models(recipe: Recipe) -> Models:
    """Load the model that trains and set torch up; takes seconds.

    Raises:
        UserError: the model cannot be loaded.
    """
    disable_progress_bar()
    torch.set_num_threads(recipe.optim.threads)
    set_up(deterministic=recipe.deterministic)
    torch.manual_seed(recipe.seed)
    path = TINY if recipe.policy.model in (None, "tiny") else Path(str(recipe.policy.model))
    path, weights = _of_run(path)
    if recipe.policy.uses == "vllm":
        check_model(path, chat=recipe.renderer == "chat", context=recipe.policy.vllm.context)
    model, tokenizer = load_model(path, device=str(device_of(recipe.learner)))
    if weights is not None:
        model.load_state_dict(weights)
    if recipe.policy.lora is not None:
        add_adapters(model, recipe.policy.lora)
    return Models(path=path, learner=model, tokenizer=tokenizer)


def _of_run(path: Path) -> tuple[Path, Any]:
    """The model directory behind a run's folder and the weights of its newest checkpoint; (path, None) for others."""
    if not (path / "checkpoints").is_dir():
        return path, None
    checkpoint, _ = Checkpoints(path / "checkpoints", keep=1).latest()
    if checkpoint is None:
        raise UserError(f"{path} has no checkpoint yet")
    policy = load_yaml(path / "config.yaml", Recipe).policy
    base = policy.model
    first, _ = _of_run(TINY if base in (None, "tiny") else Path(str(base)))
    return first, _plain(checkpoint.state["learner"]["model"], policy.lora)


def _plain(state: Any, lora: LoraConfig | None) -> Any:
    """A run's weights as those of the plain model."""
    return state if lora is None else merged(state, lora.alpha / lora.rank)


def load_policy(name: str) -> tuple[EmbeddedPolicy | OpenaiPolicy, int]:
    """A policy by `tiny`, a model directory, or the folder of a run, whose newest checkpoint serves; and its version.

    An address and a model, as `http://127.0.0.1:8000/v1#MODEL`, is a server of OpenAI's chat completions.

    Raises:
        UserError: there is no such model, or the run has no checkpoint that can be used.
    """
    if name.startswith(("http://", "https://")):
        return OpenaiPolicy(name), 0
    disable_progress_bar()
    path = Path(name)
    if name != "tiny" and not path.is_dir():
        known = "'tiny', a Hugging Face model directory, the folder of a run, or URL#MODEL"
        raise UserError(f"{name}: no such directory; a policy is {known}")
    if not (path / "checkpoints").is_dir():
        return EmbeddedPolicy(name), 0
    checkpoint, _ = Checkpoints(path / "checkpoints", keep=1).latest()
    if checkpoint is None:
        raise UserError(f"{path} has no checkpoint yet")
    policy = EmbeddedPolicy(_of_run(path)[0])
    lora = load_yaml(path / "config.yaml", Recipe).policy.lora
    policy.load_state(_plain(checkpoint.state["learner"]["model"], lora), checkpoint.update)
    return policy, checkpoint.update


def renderer_for(name: str, tokenizer: Any, protocol: str) -> Renderer:
    """The renderer of that name for a suite's protocol.

    Raises:
        UnknownName, UserError: there is none, or it does not fit the tokenizer.
    """
    made: Renderer = registry("renderer").load(name)(tokenizer, registry("protocol").load(protocol)())
    return made


def beside(recipe: Recipe, model: Any) -> BesideModels:
    """The models that a recipe's plug-ins need beside the trained one.

    Raises:
        UserError: the teacher cannot be loaded.
    """
    device = next(model.parameters()).device
    critic = Critic(model.config.hidden_size, recipe.critic, device) if recipe.critic else None
    return BesideModels(
        reference=_frozen(copy.deepcopy(model)) if recipe.reference == "initial" else None,
        teacher=_frozen(load_model(TINY if recipe.teacher == "tiny" else Path(recipe.teacher), device=str(device))[0])
        if recipe.teacher
        else None,
        critic=critic,
    )


def _frozen(model: Any) -> Any:
    return model.eval().requires_grad_(False)


def _collector(
    hub: Hub,
    policy: Policy,
    renderer: Renderer,
    protocol: str,
    sampling: Sampling,
    *,
    blank: bool = False,
    strategy: Strategy | None = None,
) -> Collector:
    native = protocol == "native"
    return Collector(
        hub, policy, renderer, sampling=sampling, native_calls=native, blank_tools=blank, strategy=strategy
    )


def following(recipe: Recipe, ranks: Ranks) -> None:
    """Be a rank beside the first of a run until that one says that it is over.

    Raises:
        UserError: the model cannot be loaded.
        HostFault: rank 0 is gone.
    """
    learner = learner_for(recipe, load_models(recipe).learner, beside, ranks)
    if isinstance(learner, Learner):
        follow(learner, ranks)


async def _lead(parts: Parts, folder: RunFolder, reporter: Reporter) -> None:
    """The loop; whatever ends it, the other ranks are let go."""
    for note in parts.learner.notes:
        reporter.note(note)
    failed = True
    try:
        await Trainer(parts, folder, reporter).run()
        failed = False
    finally:
        dismissed(parts.learner, failed)


async def train(
    folder: RunFolder,
    models: Models,
    reporter: Reporter,
    *,
    url: str | None = None,
    tasks: Sequence[Path] = (),
    ranks: Ranks = ALONE,
) -> None:
    """Train in a folder until its recipe is done.

    Args:
        url: of a hub that serves already; None starts one for the run.
        tasks: suites for the hub that is started; the packaged ones where there is none.
        ranks: the processes that share the model; this one is the first of them.

    Raises:
        UserError, HostFault, HubUnreachable: the run cannot go on; the folder stays fit to resume.
        asyncio.CancelledError: it was interrupted; the folder stays fit to resume.
    """
    recipe = folder.recipe
    async with hub_of(url, folder.path / "hub", tasks) as hub:
        # What the suite cannot do is said before an engine is started.
        strategy = await _strategy(hub, recipe, models, tasks)
        async with serving(recipe, models, folder.path) as served:
            parts = await _parts(hub, recipe, models, served, strategy, run=folder.path, tasks=tasks, ranks=ranks)
            await _lead(parts, folder, reporter)


async def _strategy(hub: Hub, recipe: Recipe, models: Models, tasks: Sequence[Path]) -> Strategy:
    part = recipe.strategy
    return await bind(hub, recipe.suite, recipe.split, part.uses, part.make(), models.tokenizer, tasks)


async def _parts(
    hub: Hub,
    recipe: Recipe,
    models: Models,
    served: Serving,
    strategy: Strategy,
    *,
    run: Path,
    tasks: Sequence[Path],
    ranks: Ranks,
) -> Parts:
    policy = served.policy
    protocol = await protocol_of(hub, recipe.suite)
    renderer = renderer_for(recipe.renderer, models.tokenizer, protocol)
    held_out: list[str] = []
    evaluator = None
    size, blank = recipe.rollout, recipe.controls.blank_tools
    if recipe.eval is not None:
        held_out = (await task_ids(hub, recipe.suite, recipe.eval.split))[: recipe.eval.tasks]
        sampling = Sampling(temperature=recipe.eval.temperature, max_tokens=size.max_tokens)
        evaluator = _collector(hub, policy, renderer, protocol, sampling, blank=blank)
    train_ids = await task_ids(hub, recipe.suite, recipe.split)
    both = set(train_ids) & set(held_out)
    if both:
        raise UserError(f"split {recipe.split!r} shares {len(both)} tasks with what is held out; use two splits")
    sampling = Sampling(temperature=size.temperature, max_tokens=size.max_tokens)
    experts = _experts(recipe, hub, models, renderer, protocol, train_ids, run, tasks)
    train_ids = experts.known(recipe.suite, train_ids) if experts else train_ids
    canaries = await _canaries(hub, recipe, protocol)
    around = _around(recipe, train_ids, experts, canaries, run)
    return Parts(
        collector=lambda: around(_collector(hub, policy, renderer, protocol, sampling, blank=blank, strategy=strategy)),
        evaluator=evaluator,
        held_out=held_out,
        sampler=recipe.sampler.make().start(train_ids, recipe.seed),
        filter=recipe.filter.make(),
        credit=recipe.credit.make(),
        correction=recipe.correction.make(),
        shaping=[part.make() for part in recipe.shaping],
        learner=learner_for(recipe, models.learner, beside, ranks),
        sync=served.sync,
        serving=policy.weight_version,
        decode=models.tokenizer.decode,
    )


def _experts(
    recipe: Recipe,
    hub: Hub,
    models: Models,
    renderer: Renderer,
    protocol: str,
    train: Sequence[str],
    run: Path,
    tasks: Sequence[Path],
) -> Experts | None:
    if recipe.experts is None:
        return None
    return open_experts(
        recipe.experts,
        suite=recipe.suite,
        train=train,
        run=run,
        tasks=tasks,
        hub=hub,
        tokenizer=models.tokenizer,
        renderer=renderer,
        native=protocol == "native",
    )


async def _canaries(hub: Hub, recipe: Recipe, protocol: str) -> list[str]:
    """Ids of the canaries. Raises UserError where they are played in another way than the suite."""
    wanted = recipe.canaries
    if wanted is None:
        return []
    if await protocol_of(hub, wanted.suite) != protocol:
        raise UserError(f"canaries of suite {wanted.suite!r} need the protocol of {recipe.suite!r}, {protocol}")
    return await task_ids(hub, wanted.suite, wanted.split)


def _around(
    recipe: Recipe, train: Sequence[str], experts: Experts | None, canaries: Sequence[str], run: Path
) -> Callable[[Collects], Collects]:
    """What a recipe puts around its collector: canaries, then groups played anew, then experts beside them."""

    def wrapped(inner: Collects) -> Collects:
        if recipe.canaries is not None:
            inner = Canaries(inner, recipe.canaries, canaries, run / CANARIES)
        if recipe.refill is not None:
            shaping = [part.make() for part in recipe.shaping]
            rounds = recipe.refill.rounds
            inner = Refill(inner, filter=recipe.filter.make(), shaping=shaping, tasks=train, rounds=rounds)
        return experts.beside(inner) if experts is not None else inner

    return wrapped


async def evaluate_policy(
    hub: Hub, policy: EmbeddedPolicy | OpenaiPolicy, renderer: str, held: Held, sampling: Sampling
) -> Evaluation:
    """avg@k and pass@k of a policy.

    Raises:
        UserError, WireError: there is no such suite or split, or the renderer does not fit.
    """
    protocol = await protocol_of(hub, held.suite)
    if isinstance(policy, OpenaiPolicy):
        renderer = "told"
    collector = _collector(hub, policy, renderer_for(renderer, policy.tokenizer, protocol), protocol, sampling)
    ids = (await task_ids(hub, held.suite, held.split))[: held.tasks]
    evaluation, _ = await evaluate(collector, held.suite, ids, k=held.k, seed=held.seed)
    return evaluation
