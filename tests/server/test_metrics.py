"""/metrics as Prometheus reads it; each hub has its own."""

from __future__ import annotations

import math
from pathlib import Path

import aiohttp
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from agenthub.server.metrics import Histogram, Metrics
from tests.server.faces import Routes
from tests.server.harness import CALL, winning
from tests.server.tenants import TOKENS, tenants

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Samples:
    """Every sample by name and labels; fails where the text is no Prometheus text."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"agenthub_{name}", frozenset(labels.items())]


async def scraped(url: str) -> Samples:
    headers = {"Authorization": f"Bearer {TOKENS['meter']}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(f"{url}/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return read(await response.text())


async def test_what_was_played_is_counted_and_timed(tmp_path: Path) -> None:
    async with tenants(tmp_path) as served, Routes(served.url, TOKENS["alice"]) as alice:
        _, made = await alice.call("create", request_id="r", suite="forks", task="heavy", count=2)
        first, second = (row["id"] for row in made["episodes"])
        await alice.call("step", episode=first, turn=0, action=CALL)
        await alice.call("step", episode=first, turn=0, action=CALL)
        await alice.call("step", episode=first, turn=9, action=CALL)
        await alice.call("step", episode=second, turn=0, action=winning())
        samples = await scraped(served.url)
    assert value(samples, "episodes_opened_total") == 2
    assert value(samples, "episodes_total", outcome="ok", stop="answered") == 1
    assert value(samples, "episodes_live") == 1
    assert value(samples, "memory_requested_mb") == 100
    assert value(samples, "steps_total") == 2, "a repeated answer is no step"
    assert value(samples, "step_seconds_count") == 3
    assert value(samples, "start_seconds_count") == 1
    assert value(samples, "errors_total", code="turn_order") == 1
    assert value(samples, "token_episodes_live", token="alice") == 1
    assert value(samples, "token_steps_total", token="alice") == 4
    assert value(samples, "token_box_seconds_total", token="alice") > 0
    assert value(samples, "boxes_warm") == value(samples, "tasks_quarantined") == 0


@given(st.lists(st.floats(0, 1000), max_size=50))
def test_a_histogram_is_cumulative_and_misses_nothing(times: list[float]) -> None:
    histogram = Histogram()
    for seconds in times:
        histogram.observe(seconds)
    samples = histogram.family("h", "text").samples
    for bucket in (it for it in samples if it.name == "h_bucket"):
        bound = math.inf if bucket.labels["le"] == "+Inf" else float(bucket.labels["le"])
        assert bucket.value == sum(seconds <= bound for seconds in times)
    totals = {it.name: it.value for it in samples if it.name != "h_bucket"}
    assert totals["h_count"] == len(times) and math.isclose(totals["h_sum"], sum(times), abs_tol=1e-6)


@given(st.text(max_size=20))
def test_any_label_is_read_back(text: str) -> None:
    metrics = Metrics()
    metrics.count("errors", 3, code=text)
    families = metrics.collect()
    rows = [it for family in families for it in family.samples if it.name == "agenthub_errors_total"]
    assert [(it.labels["code"], it.value) for it in rows] == [(text, 3)]


def test_two_hubs_of_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.count("steps")
    assert b"agenthub_steps_total 1.0" in first.render() and b"agenthub_steps_total 0.0" in second.render()
