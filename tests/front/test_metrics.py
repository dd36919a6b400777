"""What a scrape shows: Prometheus's own parser must read back what was counted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from batching.counters import Counters
from batching.families import COUNTER, GAUGE, HISTOGRAM, METRICS, SECONDS, Metric
from batching.vitals import Vitals
from front.catalog import ActiveWorker
from front.metrics import render

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def shared() -> Iterator[Counters]:
    made = Counters.create(4)
    yield made
    made.close()


def scraped(counters: Counters, *more: Any) -> Samples:
    body, _ = render(counters, *more)
    found: Samples = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, "a series twice"
            found[key] = sample.value
    return found


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_a_counter_and_a_gauge_are_read_back(shared: Counters) -> None:
    labels = {"route": "/predict", "model": "digits", "version": "3", "dialect": "native", "status": "200"}
    shared.slot(1).counter("inference_requests_total", **labels).add(3)
    shared.slot(2).counter("inference_requests_total", **labels).add(4)
    shared.slot(1).gauge("inference_connections").set(12)
    found = scraped(shared)
    assert found[key("inference_requests_total", **labels)] == 7
    assert found[key("inference_connections")] == 12


def test_a_histogram_is_cumulative_and_ends_with_its_count_and_sum(shared: Counters) -> None:
    histogram = shared.slot(1).histogram("inference_request_seconds", route="/predict")
    for seconds in (0.0005, 0.001, 0.25, 0.3, 10.0, 99.0):
        histogram.observe(seconds)
    found = scraped(shared)
    name = "inference_request_seconds"
    bounds = [*map(str, SECONDS), "+Inf"]
    filled = {"0.0005": 1, "0.001": 1, "0.25": 1, "0.5": 1, "10.0": 1, "+Inf": 1}
    for bound, expected in zip(bounds, accumulate(filled.get(bound, 0) for bound in bounds), strict=True):
        assert found[key(f"{name}_bucket", route="/predict", le=bound)] == expected
    assert found[key(f"{name}_count", route="/predict")] == 6
    assert found[key(f"{name}_sum", route="/predict")] == pytest.approx(109.5515, abs=1e-5)


def test_what_an_ended_process_counted_stays_in_the_scrape(shared: Counters) -> None:
    shared.slot(1).counter("inference_retries_total").add(2)
    shared.slot(1).histogram("inference_batch_rows", model="m", version="1").observe(16)
    before = scraped(shared)
    shared.fold(1)
    assert scraped(shared) == before


def test_every_family_is_described_and_those_without_labels_start_at_zero(shared: Counters) -> None:
    body, _ = render(shared)
    described = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert set(described) == {metric.name.removesuffix("_total") for metric in METRICS}
    for metric in METRICS:
        family = described[metric.name.removesuffix("_total")]
        assert (family.documentation, family.type) == (metric.help, metric.kind)
        assert [sample.value for sample in family.samples] == ([] if metric.labels else [0.0])


def test_the_answer_is_the_plain_text_format(shared: Counters) -> None:
    body, content_type = render(shared)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert body.endswith(b"\n")


@settings(deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=4, unique=True))
def test_any_label_is_read_back(models: list[str]) -> None:
    shared = Counters.create(2)
    for number, model in enumerate(models, 1):
        shared.slot(1).counter("inference_rows_total", model=model, version="1").add(number)
    found = scraped(shared)
    for number, model in enumerate(models, 1):
        assert found[key("inference_rows_total", model=model, version="1")] == number
    shared.close()


def test_the_age_of_the_oldest_queued_item_is_the_longest_of_any_worker_of_its_group(shared: Counters) -> None:
    for slot, waits_s in ((1, 5.0), (2, 90.0), (3, None)):
        arrived = None if waits_s is None else time.monotonic() - waits_s
        Vitals(shared.slot(slot).words).oldest(arrived)
    workers = [ActiveWorker("default", 1), ActiveWorker("default", 2), ActiveWorker("images", 3)]
    found = scraped(shared, workers)
    assert found[key("inference_queue_oldest_seconds", group="default")] == pytest.approx(90, abs=5)
    assert found[key("inference_queue_oldest_seconds", group="images")] == 0


def test_the_version_of_the_program_is_a_label(shared: Counters) -> None:
    assert scraped(shared, (), "1.2.3")[key("inference_build_info", version="1.2.3")] == 1


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_prometheus(metric: Metric) -> None:
    assert metric.name.startswith("inference_")
    assert metric.kind in {COUNTER, GAUGE, HISTOGRAM}
    assert metric.name.endswith("_total") == (metric.kind == COUNTER)
    assert not set(metric.labels) & {"le", "job", "instance"}
    assert metric.help.endswith(".")
    assert bool(metric.buckets) == (metric.kind == HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    if metric.kind == HISTOGRAM:
        assert metric.name.endswith(("_seconds", "_rows", "_bytes"))
