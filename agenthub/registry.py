"""Names of plug-ins: one lazy table per kind, filled by us and by third parties' entry points.

Nothing is imported until a plug-in is asked for by name, so `import agenthub` stays light. A third party declares
`[project.entry-points."agenthub.<kind>"]` in its own pyproject.toml. A kind without a working member is not declared.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from agenthub.errors import UnknownName, UserError

__all__ = ["KINDS", "Registry", "assumed", "registry"]


class Registry:
    """`name -> "module:attr"` for one kind of plug-in."""

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)
        self._scanned = False

    def names(self) -> list[str]:
        """Every known name, sorted; entry points of third parties included."""
        self._scan()
        return sorted(self._entries)

    def add(self, name: str, target: str) -> None:
        """Add one entry.

        Raises:
            UserError: the name is taken by something else, or the target has no `module:attr` form.
        """
        if ":" not in target:
            raise UserError(f"{self.kind} {name!r}: {target!r} is not of the form module:attr")
        if self._entries.get(name, target) != target:
            raise UserError(f"{self.kind} {name!r} is already {self._entries[name]!r}")
        self._entries[name] = target

    def load(self, name: str, where: str = "") -> Any:
        """The object behind `name`; `where` is the place that the error names.

        Raises:
            UnknownName: nothing has that name; the nearest one is named.
            UserError: the module that provides it cannot be imported here.
        """
        self._scan()
        if name not in self._entries:
            raise UnknownName(self.kind, name, self._entries, where)
        module, attribute = self._entries[name].split(":", 1)
        try:
            return getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            missing = error.name or "a package"
            raise UserError(f"{self.kind} {name!r} needs {missing}, which is not installed ({error})") from error

    def target(self, name: str) -> str:
        """`module:attr` behind a name, without importing it."""
        self._scan()
        return self._entries[name]

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        for entry in entry_points(group=f"agenthub.{self.kind}"):
            self.add(entry.name, entry.value)


_CORE: dict[str, dict[str, str]] = {
    "isolation": {
        "docker": "agenthub.sandboxes.isolation.docker:Docker",
        "gvisor": "agenthub.sandboxes.isolation.gvisor:Gvisor",
        "jail": "agenthub.sandboxes.isolation.jail:Jail",
    },
    "sandbox": {
        "browser": "agenthub.sandboxes.browser.sandbox:BrowserSandbox",
        "calculator": "agenthub.sandboxes.calculator:CalculatorSandbox",
        "desktop": "agenthub.sandboxes.desktop.sandbox:DesktopSandbox",
        "echo": "agenthub.sandboxes.echo:EchoSandbox",
        "language": "agenthub.sandboxes.languages.sandbox:LanguageSandbox",
        "lean": "agenthub.sandboxes.lean.sandbox:LeanSandbox",
        "python": "agenthub.sandboxes.python.sandbox:PythonSandbox",
        "search": "agenthub.sandboxes.search.sandbox:SearchSandbox",
        "shell": "agenthub.sandboxes.shell.sandbox:ShellSandbox",
        "sql": "agenthub.sandboxes.sql.sandbox:SqlSandbox",
        "table": "agenthub.sandboxes.table:TableSandbox",
    },
    "policy": {
        "embedded": "agenthub.policies.embedded:EmbeddedPolicy",
        "openai": "agenthub.policies.openai:OpenaiPolicy",
        "scripted": "agenthub.policies.scripted:ScriptedPolicy",
        "vllm": "agenthub.policies.vllm:VllmPolicy",
    },
    "protocol": {
        "boxed": "agenthub.renderers.text:Boxed",
        "fence_simpletir": "agenthub.renderers.text:FenceSimpletir",
        "fence_strict": "agenthub.renderers.text:FenceStrict",
        "native": "agenthub.renderers.text:Native",
        "search_json": "agenthub.renderers.search_calls:Json",
        "search_r1": "agenthub.renderers.search:SearchR1",
        "search_tags": "agenthub.renderers.search:SearchTags",
        "search_tool_call": "agenthub.renderers.search_calls:ToolCall",
        "search_verl": "agenthub.renderers.search_calls:Verl",
        "search_zerosearch": "agenthub.renderers.search:ZeroSearch",
        "sketch": "agenthub.renderers.lean:Sketch",
        "sql_tags": "agenthub.renderers.sql:SqlTags",
    },
    "renderer": {
        "chat": "agenthub.renderers.chat:ChatRenderer",
        "plain": "agenthub.renderers.plain:PlainRenderer",
        "told": "agenthub.renderers.plain:ToldRenderer",
    },
    "check": {
        "citation": "agenthub.rewards.search:citation",
        "cover_match": "agenthub.rewards.search:cover_match",
        "exact": "agenthub.rewards.checks:exact",
        "io_cases": "agenthub.rewards.code:io_cases",
        "lean": "agenthub.rewards.lean:lean",
        "not_followed": "agenthub.rewards.search:not_followed",
        "numeric": "agenthub.rewards.checks:numeric",
        "qatch": "agenthub.rewards.sql:qatch",
        "reasoning_gym": "agenthub.rewards.checks:reasoning_gym",
        "regex": "agenthub.rewards.checks:regex",
        "search_utility": "agenthub.rewards.search:search_utility",
        "shell_tests": "agenthub.rewards.shell:shell_tests",
        "spy": "agenthub.rewards.spy:spy",
        "sql_execution": "agenthub.rewards.sql:sql_execution",
        "squad_em": "agenthub.rewards.search:squad_em",
        "squad_f1": "agenthub.rewards.search:squad_f1",
        "unittest": "agenthub.rewards.code:unittest",
        "world_score": "agenthub.rewards.world:world_score",
        "world_state": "agenthub.rewards.state:world_state",
    },
    "turn_check": {
        "answered": "agenthub.rewards.turns:answered",
        "call_ok": "agenthub.rewards.turns:call_ok",
        "called": "agenthub.rewards.search:called",
        "output_has_target": "agenthub.rewards.turns:output_has_target",
    },
    "generator": {
        "arithmetic": "agenthub.generators.arithmetic:generate",
        "lean": "agenthub.generators.lean:generate",
        "miniwob": "agenthub.generators.miniwob:generate",
        "multihop": "agenthub.generators.multihop:generate",
        "reasoning_gym": "agenthub.generators.reasoning:generate",
        "spy": "agenthub.generators.spy:generate",
        "sql": "agenthub.generators.sql:generate",
    },
    "corpus": {"encyclopedia": "agenthub.generators.encyclopedia:articles"},
    "engine": {
        "brave": "agenthub.sandboxes.search.engines:Brave",
        "searxng": "agenthub.sandboxes.search.engines:Searxng",
        "serper": "agenthub.sandboxes.search.engines:Serper",
        "tavily": "agenthub.sandboxes.search.engines:Tavily",
    },
}
_TRAINER: dict[str, dict[str, str]] = {
    "shaping": {
        "rlcr": "agenthub.trainers.shaping:RLCR",
        "soft_overlong": "agenthub.trainers.shaping:SoftOverlong",
    },
    "filter": {
        "all_calls_failed": "agenthub.trainers.gates:AllCallsFailed",
        "dapo_dynamic": "agenthub.trainers.gates:DapoDynamic",
        "group_gate": "agenthub.trainers.gates:GroupGate",
        "no_call": "agenthub.trainers.gates:NoCall",
        "none": "agenthub.trainers.filters:NoFilter",
        "overlong": "agenthub.trainers.gates:Overlong",
        "simpletir": "agenthub.trainers.filters:SimpleTIR",
        "thor": "agenthub.trainers.gates:THOR",
    },
    "credit": {
        "aepo": "agenthub.trainers.credit:AEPO",
        "arpo": "agenthub.trainers.credit:ARPO",
        "asymre": "agenthub.trainers.credit:AsymRE",
        "dr_grpo": "agenthub.trainers.credit:DrGRPO",
        "flow_grpo": "agenthub.trainers.credit:FlowGRPO",
        "g_opd": "agenthub.trainers.credit:GOPD",
        "gae": "agenthub.trainers.credit:GAE",
        "gigpo": "agenthub.trainers.credit:GiGPO",
        "grpo": "agenthub.trainers.credit:GRPO",
        "mt_grpo": "agenthub.trainers.credit:MTGRPO",
        "opd": "agenthub.trainers.credit:OPD",
        "opmd": "agenthub.trainers.credit:OPMD",
        "otb": "agenthub.trainers.credit:OTB",
        "polychromic": "agenthub.trainers.credit:Polychromic",
        "return_to_go": "agenthub.trainers.credit:ReturnToGo",
        "rloo": "agenthub.trainers.credit:RLOO",
        "role_baseline": "agenthub.trainers.credit:RoleBaseline",
        "step_wise": "agenthub.trainers.credit:StepWise",
        "thor": "agenthub.trainers.credit:THOR",
        "tir_otb": "agenthub.trainers.credit:MultiTurnOTB",
        "turn_value_by_fork": "agenthub.trainers.credit:TurnValueByFork",
    },
    "correction": {
        "icepop": "agenthub.trainers.corrections:IcePop",
        "mis": "agenthub.trainers.corrections:MIS",
        "none": "agenthub.trainers.corrections:NoCorrection",
        "opsm": "agenthub.trainers.corrections:OPSM",
        "rejection": "agenthub.trainers.corrections:Rejection",
        "tis": "agenthub.trainers.corrections:TIS",
    },
    "loss": {
        "ahpo": "agenthub.trainers.losses:AHPO",
        "asymre": "agenthub.trainers.losses:Reinforce",
        "bapo": "agenthub.trainers.losses:BAPO",
        "chi2": "agenthub.trainers.losses:Chi2",
        "chord": "agenthub.trainers.losses:CHORD",
        "cispo": "agenthub.trainers.losses:CISPO",
        "convex_kl": "agenthub.trainers.losses:ConvexKL",
        "critique": "agenthub.trainers.losses:CritiqueGRPO",
        "gspo": "agenthub.trainers.losses:GSPO",
        "gspo_token": "agenthub.trainers.losses:GSPOToken",
        "kl": "agenthub.trainers.losses:KL",
        "minirl": "agenthub.trainers.losses:MiniRL",
        "nft": "agenthub.trainers.losses:NFT",
        "opmd": "agenthub.trainers.losses:OPMDLoss",
        "ppo": "agenthub.trainers.losses:PPO",
        "r2vpo": "agenthub.trainers.losses:R2VPO",
        "reinforce": "agenthub.trainers.losses:Reinforce",
        "reval": "agenthub.trainers.losses:ReVal",
        "rl_sft": "agenthub.trainers.losses:RLSFT",
        "sapo": "agenthub.trainers.losses:SAPO",
        "sft": "agenthub.trainers.losses:SFT",
        "thor": "agenthub.trainers.losses:THORLoss",
    },
    "sampler": {
        "dump": "agenthub.trainers.samplers:Dump",
        "fifo_replay": "agenthub.trainers.samplers:FifoReplay",
        "hard_focus": "agenthub.trainers.samplers:HardFocus",
        "limr": "agenthub.trainers.samplers:Limr",
        "staged": "agenthub.trainers.samplers:Staged",
        "uniform": "agenthub.trainers.samplers:Uniform",
    },
    "rollout": {
        "aepo": "agenthub.trainers.rollouts:AEPO",
        "arpo": "agenthub.trainers.rollouts:ARPO",
        "critique": "agenthub.trainers.rollouts:Critique",
        "fixed": "agenthub.trainers.rollouts:Fixed",
        "pope": "agenthub.trainers.rollouts:Pope",
        "scaling_inter": "agenthub.trainers.rollouts:ScalingInter",
        "thor_backtrack": "agenthub.trainers.rollouts:ThorBacktrack",
        "turn_values": "agenthub.trainers.rollouts:TurnValues",
    },
    "sync": {
        "adapter": "agenthub.trainers.sync.vllm:AdapterSync",
        "embedded": "agenthub.trainers.sync.embedded:EmbeddedSync",
        "native": "agenthub.trainers.sync.native:NativeSync",
        "vllm": "agenthub.trainers.sync.vllm:VllmSync",
    },
}
_EXPERIMENTAL: dict[str, dict[str, str]] = {
    "credit": {
        "aepo": "alpha, and that deviations are unbiased; the paper was not read",
        "arpo": "that a branch's shared turns are found by its fork",
        "polychromic": "diversity is the share of distinct action texts",
        "return_to_go": "nothing: no paper, but its expectation is checked against a known gradient",
        "role_baseline": "the decay, and that a baseline starts at 0",
        "turn_value_by_fork": "values are carried over the turns between two forks",
    },
    "loss": {
        "ahpo": "how few members must be right before an expert helps; there is no code",
        "chi2": "the estimator, which is ours",
        "convex_kl": "the mixture of ReMix, of which there is no training code",
        "r2vpo": "lambda, delta and eta; there is no official code",
        "reval": "that turns after the first add their log-probabilities and no value of their own",
        "rl_sft": "the lengths of the phases, and that episodes go on being played while it imitates",
    },
    "rollout": {
        "aepo": "balance, the linear damping, the rounding, and that the probe is one of the roots",
        "arpo": "the mean of a turn's first entropies in nats, where the code sums the ten highest over log V",
        "critique": "a fixed sentence stands in for a model's critique",
        "pope": "the share of the oracle's solution, and that a group's own members say whether a task is unsolved",
        "thor_backtrack": "how many suffixes and trajectories a group has, and the cut by tokens from the turn's end",
    },
    "sampler": {
        "hard_focus": "the share of hard tasks, and one group size for both stages",
        "staged": "the split lists its tasks from easy to hard",
    },
    "shaping": {"rlcr": "how a confidence is written"},
}


def assumed(kind: str, name: str) -> str | None:
    """What an experimental plug-in takes for granted, as no number of its own or code backs it; None for the others."""
    return _EXPERIMENTAL.get(kind, {}).get(name)


KINDS: Mapping[str, Registry] = {kind: Registry(kind, rows) for kind, rows in (_CORE | _TRAINER).items()}


def registry(kind: str) -> Registry:
    """The table of one kind.

    Raises:
        UnknownName: there is no such kind.
    """
    if kind not in KINDS:
        raise UnknownName("kind of plug-in", kind, KINDS)
    return KINDS[kind]
