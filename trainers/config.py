"""A recipe: the YAML file that names one plug-in per kind and says how much of everything.

    recipe = load_recipe("simpletir", ["updates=10", "filter.args.min_n=4"])

The models are pydantic and frozen; their fields are the keys of the file. Defaults live here and nowhere else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from agenthub.config import ConfigModel, load_yaml, read_document
from agenthub.errors import ConfigError, UserError, nearest
from agenthub.trainers.adapters import LoraConfig
from agenthub.trainers.critic import CriticConfig
from agenthub.trainers.experts.config import ExpertsConfig
from agenthub.trainers.hardware import LearnerConfig
from agenthub.trainers.plugins import lacking, make
from agenthub.trainers.refilling import RefillConfig

__all__ = [
    "CanariesConfig",
    "ControlsConfig",
    "EvalConfig",
    "OptimConfig",
    "PolicyConfig",
    "Recipe",
    "RolloutConfig",
    "UsesCorrection",
    "UsesCredit",
    "UsesFilter",
    "UsesLoss",
    "UsesRollout",
    "UsesSampler",
    "UsesShaping",
    "list_recipes",
    "load_recipe",
    "recipe_path",
]

RECIPES = Path(__file__).parent / "recipes"
FORMAT = "agenthub.recipe/1"
TRAINED = ("entropies", "first_state_logsumexp", "sum_pi_sq")
"""What the embedded policy and the trained model give by themselves, of `plugins.NEEDS`."""


class _Uses(ConfigModel):
    """A plug-in by name with its options; both are checked when the file is read."""

    kind: ClassVar[str]
    uses: str
    args: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _checked(self) -> _Uses:
        try:
            self.make()
        except UserError as error:
            raise ValueError(str(error)) from error
        return self

    def make(self) -> Any:
        """The plug-in."""
        return make(self.kind, self.uses, self.args)


class UsesFilter(_Uses):
    """Which trajectories train."""

    kind = "filter"


class UsesCredit(_Uses):
    """From rewards to advantages."""

    kind = "credit"


class UsesCorrection(_Uses):
    """Weights for the gap between the engine that samples and the model that trains."""

    kind = "correction"


class UsesShaping(_Uses):
    """A named component that the trainer adds to the rewards."""

    kind = "shaping"


class UsesLoss(_Uses):
    """The policy loss."""

    kind = "loss"


class UsesRollout(_Uses):
    """What a group grows into while it is played."""

    kind = "rollout"


class UsesSampler(_Uses):
    """Which tasks are played next."""

    kind = "sampler"


class VllmConfig(ConfigModel):
    """A vLLM server: started for the run, or one that serves already."""

    url: str | None = Field(default=None, description="of a server that serves already; null starts one")
    served_name: str = Field(default="policy", min_length=1, description="what the server calls the model")
    dtype: Literal["float32", "bfloat16"] = "float32"
    context: int | None = Field(default=None, ge=2, description="tokens; null is the model's own")
    max_num_seqs: int = Field(default=64, ge=1, description="turns that are sampled at once; more wait")
    kv_cache_mb: int | None = Field(default=None, ge=16, description="null is 128 on a CPU, what is free on a GPU")
    gpu_memory: float = Field(default=0.4, gt=0.0, lt=1.0, description="share of a GPU's memory for the server")
    port: int = Field(default=0, ge=0, le=65535, description="0 takes a free one")
    pause: Literal["keep", "wait", "abort"] = Field(
        default="keep", description="turns in flight during a push: go on under the new weights, end first, start anew"
    )
    sync: Literal["auto", "directory", "nccl", "ipc"] = Field(
        default="auto",
        description="how weights reach a server; auto: ipc to one on this GPU, nccl to one on `devices`, or directory",
    )
    devices: str | None = Field(default=None, description="GPUs of a server that is started; null is the learner's")
    entropy_top_k: int = Field(default=0, ge=0, le=20, description="entropies over so many likeliest tokens; 0: none")
    retry_s: float = Field(default=60.0, gt=0.0, description="how long a lost request is tried again")
    flags: tuple[str, ...] = Field(default=(), description="more flags of vLLM's, as they are")


class PolicyConfig(ConfigModel):
    """The model that is trained and serves."""

    uses: Literal["embedded", "vllm"] = "embedded"
    model: str | None = Field(
        default=None,
        description="a Hugging Face directory, or a run's folder (its newest checkpoint); null is the tiny policy",
    )
    lora: LoraConfig | None = Field(default=None, description="train adapters beside frozen weights; null trains all")
    vllm: VllmConfig = VllmConfig()

    @field_validator("uses", mode="before")
    @classmethod
    def _has_ids(cls, uses: object) -> object:
        if uses in ("openai", "scripted"):
            raise ValueError(f"{uses} tells no token ids: it can be evaluated and never trained")
        return uses


class RolloutConfig(ConfigModel):
    """What is collected for one update."""

    groups: int = Field(default=16, ge=1, description="tasks played for an update")
    group_size: int = Field(default=8, ge=1, le=1024, description="episodes on each of them")
    temperature: float = Field(default=1.0, gt=0.0, le=10.0)
    max_tokens: int = Field(default=40, ge=1, description="tokens of one turn")


class OptimConfig(ConfigModel):
    """AdamW and how a batch is cut up."""

    lr: float = Field(default=3e-4, gt=0.0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    grad_clip: float | None = Field(
        default=1.0, gt=0.0, description="bound on the gradient's norm; null leaves it as it is"
    )
    warmup: int = Field(default=0, ge=0, description="updates over which the learning rate rises from 0")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="of the learning rate to updates"
    )
    minibatches: int = Field(default=2, ge=1)
    epochs: int = Field(default=1, ge=1)
    old_logprobs: Literal["auto", "rollout", "recompute"] = Field(
        default="auto", description="auto recomputes them only where older weights sampled a token"
    )
    view_tokens: int = Field(default=1024, ge=1, description="tokens of one forward pass")
    graph_tokens: int = Field(default=65536, ge=1, description="tokens whose graph may be kept; more costs two passes")
    threads: int = Field(default=2, ge=1, description="threads of torch; the weights depend on their number")

    @field_validator("betas")
    @classmethod
    def _below_one(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"betas are {list(betas)}; expected two numbers from 0 to below 1")
        return betas


class EvalConfig(ConfigModel):
    """Evaluations on held-out tasks."""

    every: int = Field(
        default=0, ge=0, description="updates between two; 0 is before the first and after the last alone"
    )
    split: str = "eval"
    tasks: int = Field(default=200, ge=1, description="the first ones of the split")
    k: int = Field(default=8, ge=1, le=1024, description="episodes on each task")
    temperature: float = Field(default=1.0, ge=0.0, le=10.0)


class ControlsConfig(ConfigModel):
    """Controls: runs that must not learn, because what they could learn from is taken away."""

    shuffle_rewards: bool = Field(default=False, description="rewards change hands at random within each group")
    blank_tools: bool = Field(
        default=False, description="the policy sees empty observations in place of its tools' output"
    )


class CanariesConfig(ConfigModel):
    """Tasks that nobody can solve, played among the others; one that is solved stops the run."""

    suite: str
    split: str = "canary"
    share: float = Field(default=0.05, gt=0.0, le=1.0, description="of the groups, how many have a canary beside them")
    episodes: int = Field(default=1, ge=1, le=1024, description="on each canary")


class Recipe(ConfigModel):
    """One training run."""

    format: Literal["agenthub.recipe/1"]
    name: str = Field(min_length=1)
    description: str = ""
    source: str = Field(default="", description="paper or code that the method is from")
    known: str = Field(default="", description="what is known of the method, and where this form of it differs")
    tier: Literal["golden", "learns", "experimental"] = Field(
        default="experimental",
        description="learns: a benchmark shows it improve; golden: its numbers are checked; experimental: neither",
    )
    suite: str
    split: str = "train"
    policy: PolicyConfig = PolicyConfig()
    renderer: Literal["plain", "chat"] = "plain"
    rollout: RolloutConfig = RolloutConfig()
    strategy: UsesRollout = Field(default_factory=lambda: UsesRollout(uses="fixed"))
    sampler: UsesSampler = Field(default_factory=lambda: UsesSampler(uses="uniform"))
    filter: UsesFilter
    credit: UsesCredit
    correction: UsesCorrection = Field(default_factory=lambda: UsesCorrection(uses="none"))
    loss: UsesLoss
    regularise: tuple[UsesLoss, ...] = Field(default=(), description="losses that are added to the first")
    shaping: tuple[UsesShaping, ...] = Field(default=(), description="components that the trainer adds to the rewards")
    refill: RefillConfig | None = Field(default=None, description="groups that the filter throws away are played anew")
    reference: Literal["none", "initial"] = Field(
        default="none", description="initial: a frozen copy of the first weights"
    )
    teacher: str | None = Field(default=None, description="a Hugging Face directory with the same tokenizer")
    critic: CriticConfig | None = Field(default=None, description="a value head; null trains none")
    experts: ExpertsConfig | None = Field(default=None, description="recorded trajectories that train too")
    optim: OptimConfig = OptimConfig()
    learner: LearnerConfig = LearnerConfig()
    sync_bound: float = Field(
        default=1e-3, gt=0.0, description="largest difference of a log-probability after a push, nats"
    )
    staleness: int = Field(
        default=0,
        ge=0,
        le=64,
        description="batches that may be played ahead of the weights; 0 plays and trains in turn (sync), more is async",
    )
    updates: int = Field(default=40, ge=0)
    eval: EvalConfig | None = Field(default_factory=EvalConfig)
    checkpoint_every: int = Field(default=5, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    seed: int = Field(default=0, ge=0)
    deterministic: bool = True
    controls: ControlsConfig = ControlsConfig()
    canaries: CanariesConfig | None = Field(default=None, description="tasks that nobody can solve; one accept stops")

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.optim.warmup > self.updates:
            raise ValueError(f"optim.warmup is {self.optim.warmup}, more than updates, {self.updates}")
        min_n = self.filter.args.get("min_n", 1)
        if isinstance(min_n, int) and min_n > self.rollout.group_size:
            raise ValueError(f"filter.args.min_n is {min_n}, more than rollout.group_size, {self.rollout.group_size}")
        self._check_plugins()
        return self

    def provides(self) -> frozenset[str]:
        """What plug-ins may need that this recipe gives, of `plugins.NEEDS`."""
        given = {"ref": self.reference != "none", "teacher": self.teacher is not None, "value": self.critic is not None}
        given["experts"] = self.experts is not None
        given["fork"] = self.strategy.make().forks
        told = self.policy.uses == "embedded" or self.policy.vllm.entropy_top_k > 0
        given["entropies"] = told
        trained = frozenset(TRAINED) - {"entropies"}
        return trained | {need for need, there in given.items() if there}

    def _check_plugins(self) -> None:
        """Refuse what cannot work together before anything starts."""
        losses = (self.loss, *self.regularise)
        if self.experts is not None and not any("experts" in part.make().needs for part in losses):
            raise ValueError(f"experts are given, and loss {self.loss.uses!r} learns nothing from them; chord does")
        for part in (self.strategy, self.credit, *losses):
            problem = lacking(part.kind, part.uses, part.make(), self.provides())
            if problem:
                raise ValueError(problem)
        if self.correction.make().corrects:
            if self.loss.make().corrects:
                raise ValueError(
                    f"loss {self.loss.uses!r} corrects by itself; with {self.correction.uses!r} it would twice"
                )
            if self.optim.old_logprobs == "rollout":
                raise ValueError(
                    "with optim.old_logprobs: rollout the ratio corrects by itself; "
                    f"correction {self.correction.uses!r} would do it twice"
                )


def recipe_path(name: str) -> Path:
    """The file of a recipe: a path, or the name of one that ships.

    Raises:
        UserError: there is no such file or name.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return Path(name)
    known = [path.stem for path in sorted(RECIPES.glob("*.yaml"))]
    if name not in known:
        raise UserError(f"no recipe named {name!r}{nearest(name, known)}")
    return RECIPES / f"{name}.yaml"


def load_recipe(name: str, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe, by path or by the name of one that ships, with `key=value` put over it.

    Raises:
        ConfigError, UserError: as `load_yaml` and `recipe_path` raise them.
    """
    return load_yaml(recipe_path(name), Recipe, overrides=overrides or [])


def list_recipes(folder: Path = RECIPES) -> list[dict[str, str]]:
    """Name, plug-ins, source, tier, description and what is known of each recipe of a folder; no plug-in is loaded.

    Raises:
        ConfigError: a file cannot be read.
    """
    rows = []
    for path in sorted(folder.glob("*.yaml")):
        data = read_document(path).data
        if not isinstance(data, dict):
            raise ConfigError(str(path), "is no recipe")
        row = {key: str(data.get(key, "")) for key in ("name", "source", "tier", "description", "known")}
        parts = [_used(data.get(key)) for key in ("filter", "credit", "loss")]
        beside = [data.get(key) for key in ("strategy", "sampler", "correction")]
        more = [*beside, *data.get("regularise", ()), *data.get("shaping", ())]
        row["kind"] = " + ".join([*parts, *(_used(part) for part in more if part is not None)])
        rows.append(row)
    return rows


def _used(part: object) -> str:
    return str(part.get("uses", "?")) if isinstance(part, dict) else "?"
