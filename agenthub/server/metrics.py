"""Counts, times and levels of one hub, for Prometheus.

What is counted on the way of a step are plain integers; prometheus_client sees them when it is asked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from agenthub.server.quotas import Accounts

__all__ = ["Histogram", "Metrics"]

_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "episodes_opened": ("Episodes opened.", ()),
    "episodes": ("Episodes ended, by outcome (ok, model_fault, env_fault, infra_fault) and stop.", ("outcome", "stop")),
    "episodes_reaped": ("Episodes ended because their lease ran out.", ()),
    "steps": ("Steps answered, repeated answers left out.", ()),
    "recovered": ("Episodes of a killed hub that went on: boxes attached, replayed, none needed, or lost.", ("way",)),
    "errors": ("Errors answered, by code.", ("code",)),
}
_HISTOGRAMS = {
    "step": "Seconds from a step's request to its answer.",
    "start": "Seconds from a request that opens or copies episodes to its answer.",
}
_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Histogram:
    """How often a time fell under each bound."""

    def __init__(self) -> None:
        self._counts, self._sum_s = [0] * (len(_BOUNDS_S) + 1), 0.0

    def observe(self, seconds: float) -> None:
        """Count one time."""
        self._counts[bisect_left(_BOUNDS_S, seconds)] += 1
        self._sum_s += seconds

    def family(self, name: str, text: str) -> Metric:
        """As prometheus_client wants it: cumulative."""
        total, buckets = 0, []
        for bound, count in zip([*map(str, _BOUNDS_S), "+Inf"], self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        family = HistogramMetricFamily(name, text)
        family.add_metric([], buckets, sum_value=self._sum_s)
        return family


class Metrics(Collector):
    """Counts since the process began; one thread."""

    def __init__(self, accounts: Accounts | None = None) -> None:
        """`accounts` are shown by token."""
        self._accounts = accounts or Accounts()
        self._counts: dict[str, Counter[tuple[str, ...]]] = {name: Counter() for name in _COUNTERS}
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self.step, self.start = Histogram(), Histogram()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Add to the counter `agenthub_<name>_total`."""
        self._counts[name][tuple(labels.values())] += by

    def gauge(self, name: str, text: str, level: Callable[[], float]) -> None:
        """Show `agenthub_<name>`, asked for whenever somebody looks."""
        self._gauges[name] = (text, level)

    def render(self) -> bytes:
        """Prometheus text format 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Every metric as it is now."""
        for name, (text, level) in self._gauges.items():
            yield GaugeMetricFamily(f"agenthub_{name}", text, value=level())
        for name, (text, labels) in _COUNTERS.items():
            family = CounterMetricFamily(f"agenthub_{name}", text, labels=labels)
            found = self._counts[name]
            for values in sorted(found) if labels else [()]:
                family.add_metric(values, found[values])
            yield family
        yield self.step.family("agenthub_step_seconds", _HISTOGRAMS["step"])
        yield self.start.family("agenthub_start_seconds", _HISTOGRAMS["start"])
        yield from self._by_token()

    def _by_token(self) -> Iterator[Metric]:
        live = GaugeMetricFamily("agenthub_token_episodes_live", "Live episodes of a token.", labels=["token"])
        steps = CounterMetricFamily("agenthub_token_steps", "Steps asked for with a token.", labels=["token"])
        boxes = CounterMetricFamily("agenthub_token_box_seconds", "Box seconds of a token.", labels=["token"])
        for account in self._accounts.all():
            live.add_metric([account.name], account.live)
            steps.add_metric([account.name], account.steps)
            boxes.add_metric([account.name], account.box_seconds)
        yield from (live, steps, boxes)
