"""Counters of one hub, as Prometheus text."""

from __future__ import annotations

from collections import Counter

__all__ = ["Metrics"]

_HELP = {
    "agenthub_episodes_opened_total": "Episodes opened.",
    "agenthub_episodes_total": "Episodes ended, by outcome and stop.",
    "agenthub_episodes_reaped_total": "Episodes ended because their lease ran out.",
    "agenthub_steps_total": "Steps answered, repeated answers left out.",
    "agenthub_errors_total": "Errors answered, by code.",
}


class Metrics:
    """Counts since the process began; one thread."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in _HELP}

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Add to the counter `agenthub_<name>_total`."""
        shown = ",".join(f'{key}="{value}"' for key, value in labels.items())
        self._counts[f"agenthub_{name}_total"][f"{{{shown}}}" if shown else ""] += by

    def render(self, live: int, requested_mb: int) -> str:
        """Prometheus text format 0.0.4; `live` episodes are live now, their boxes asked for `requested_mb` MiB."""
        lines = ["# HELP agenthub_episodes_live Episodes that are live.", "# TYPE agenthub_episodes_live gauge"]
        lines.append(f"agenthub_episodes_live {live}")
        lines.append("# HELP agenthub_memory_requested_mb MiB that the boxes of live episodes asked for.")
        lines += ["# TYPE agenthub_memory_requested_mb gauge", f"agenthub_memory_requested_mb {requested_mb}"]
        for name, text in _HELP.items():
            lines += [f"# HELP {name} {text}", f"# TYPE {name} counter"]
            lines += [f"{name}{labels} {value}" for labels, value in sorted(self._counts[name].items())]
        return "\n".join(lines) + "\n"
