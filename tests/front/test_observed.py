"""The metrics of a whole server under load and through deaths: readable at any moment, and in step with its clients."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.faults.asking import address, get, post
from tests.faults.base import until_ready
from tests.faults.connection import Ask, Asked, posted
from tests.faults.load import Load
from tests.harness import SOON_S, Server, fake_http_server, wait_until

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
SCRAPES = 25
UNKNOWN = 10_000
AT_ONCE = 100


@pytest.fixture
def server() -> Iterator[Server]:
    with fake_http_server([{"name": "double", "seconds": 0.002}], fronts=2, workers=2) as running:
        yield running


def scrape(server: Server) -> Samples:
    """One scrape, as Prometheus's own parser reads it; each series once."""
    reply = get(server.url, "/metrics")
    assert reply.status == 200
    found: Samples = {}
    for family in text_string_to_metric_families(reply.body.decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def requests(samples: Samples) -> Counter[tuple[str, str, str]]:
    """(dialect, model, status) -> answers counted."""
    found: Counter[tuple[str, str, str]] = Counter()
    for (name, pairs), value in samples.items():
        if name == "inference_requests_total":
            labels = dict(pairs)
            found[labels["dialect"], labels["model"], labels["status"]] += int(value)
    return found


def mixed(order: int) -> Ask:
    """One dialect after the other, and now and then a refusal."""
    number = float(order)
    tensors = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [number]}]}
    path, value = [
        ("/predict/double", {"features": [number]}),
        ("/v1/models/double:predict", {"instances": [[number]]}),
        ("/v2/models/double/infer", tensors),
        ("/predict/double", {"features": ["x"]}),
        ("/predict/nobody", {"features": [number]}),
    ][order % 5]
    return posted(path, json.dumps(value).encode(), path, lambda told: True)


DIALECTS = {
    "/predict/double": ("native", "double"),
    "/v1/models/double:predict": ("tf_serving", "double"),
    "/v2/models/double/infer": ("open_inference", "double"),
    "/predict/nobody": ("native", ""),
}


def heard(asked: list[Asked]) -> Counter[tuple[str, str, str]]:
    """The same as `requests`, as the clients counted it."""
    return Counter((*DIALECTS[one.kind], str(one.status)) for one in asked if one.status)


def test_a_scrape_under_load_is_readable_and_nothing_in_it_goes_backwards(server: Server) -> None:
    with Load(server.url, 16, make=mixed) as load:
        load.until(200)
        before = scrape(server)
        for _ in range(SCRAPES):
            now = scrape(server)
            for key, value in before.items():
                if key[0].endswith(("_total", "_count", "_bucket", "_sum")):
                    assert now[key] >= value, key
            before = now
        asked = load.finish()
    assert requests(scrape(server)) >= heard(asked)
    assert not [one for one in asked if one.fault]


def test_every_family_with_a_part_in_a_prediction_has_counted_it(server: Server) -> None:
    body = b'{"features":[1.0]}'
    for _ in range(20):
        assert post(server.url, "/predict/double", body).status == 200
    memory = "inference_resident_memory_bytes"
    found = scrape(server)

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    route, model = {"route": "/predict/{model}"}, {"model": "double", "version": "1"}
    labels = {**route, **model, "dialect": "native", "status": "200"}
    assert value("inference_requests_total", **labels) == 20
    for name, of in (
        ("inference_request_seconds", route),
        ("inference_request_bytes", route),
        ("inference_response_bytes", route),
        ("inference_model_request_seconds", {**model, "outcome": "answered"}),
        ("inference_parse_seconds", model),
        ("inference_encode_seconds", model),
        ("inference_queue_seconds", model),
    ):
        assert value(f"{name}_count", **of) == 20
        assert value(f"{name}_sum", **of) > 0
    assert value("inference_request_bytes_sum", **route) == 20 * len(body)
    assert value("inference_request_bytes_bucket", **route, le="64.0") == 20
    assert value("inference_request_bytes_bucket", **route, le="+Inf") == 20
    kinds = [(memory, frozenset({("process", kind)})) for kind in ("front", "worker", "supervisor")]

    def weighed() -> bool:
        now = scrape(server)
        return all(now[kind] > 1e6 for kind in kinds)

    wait_until(weighed, SOON_S, "the memory of each kind")


def statuses_of(server: Server, requests_: list[bytes]) -> Counter[int]:
    """The statuses of the answers to these, sent over one connection."""
    found: Counter[int] = Counter()
    with socket.create_connection(address(server.url), SOON_S) as sock, sock.makefile("rb") as answers:
        for start in range(0, len(requests_), AT_ONCE):
            sock.sendall(b"".join(requests_[start : start + AT_ONCE]))
            for _ in requests_[start : start + AT_ONCE]:
                found[int(answers.readline().split()[1])] += 1
                length = 0
                while (line := answers.readline()) != b"\r\n":
                    name, _, value = line.partition(b":")
                    length = int(value) if name == b"Content-Length" else length
                answers.read(length)
    return found


def unknown(number: int) -> bytes:
    """A request to what nobody knows: a path, a model, a version, a dialect's path, a method."""
    method, path = [
        ("GET", f"/nothing-{number}"),
        ("POST", f"/predict/model-{number}"),
        ("POST", f"/predict/double?version={number + 2}"),
        ("POST", f"/v1/models/model-{number}:predict"),
        ("POST", f"/v2/models/model-{number}/versions/{number}/infer"),
        ("GET", f"/v2/nothing-{number}"),
        (f"METHOD{number}", "/predict/double"),
        ("DELETE", f"/static/{number}"),
    ][number % 8]
    return f"{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nX-Trace: {number}\r\n\r\n{{}}".encode()


def test_no_number_of_unknown_paths_models_and_methods_makes_a_series() -> None:
    with fake_http_server([{"name": "double"}], allowed_hosts="*") as server:
        statuses_of(server, [unknown(number) for number in range(8)])
        scrape(server)  # its own series
        before = scrape(server)
        answered = statuses_of(server, [unknown(number) for number in range(8, 8 + UNKNOWN)])
        after = scrape(server)
    assert answered.keys() <= {400, 404, 405}
    assert answered.total() == UNKNOWN
    assert after.keys() == before.keys()
    assert sum(requests(after).values()) - sum(requests(before).values()) == UNKNOWN + 1  # the scrape between


def test_a_worker_s_death_leaves_the_counters_in_step_with_the_clients(server: Server) -> None:
    until_ready(server, 2)
    with Load(server.url, 16, make=mixed) as load:
        load.until(200)
        server.kill(server.children("worker")[0])
        until_ready(server, 3)
        load.until(load.answered + 200)
        asked = load.finish()
    assert not [one for one in asked if one.fault]
    found = {key: count for key, count in requests(scrape(server)).items() if key[0]}
    assert found == heard(asked)


def test_a_front_s_death_loses_no_count_and_makes_none_twice(server: Server) -> None:
    """What it has counted and could not send any more is counted without being heard; nothing else is."""
    with Load(server.url, 16, make=mixed) as load:
        load.until(200)
        front = server.children("front")[0]
        server.kill(front)
        wait_until(lambda: len(server.children("front")) == 2 and front not in server.children("front"), SOON_S, "one")
        load.until(load.answered + 200)
        asked = load.finish()
    told, counted = heard(asked), requests(scrape(server))
    unheard = Counter({key: count - told[key] for key, count in counted.items() if key[0]})
    assert min(unheard.values()) >= 0
    assert unheard.total() <= len([one for one in asked if not one.status])


def test_scrapes_of_both_fronts_at_once_say_the_same(server: Server) -> None:
    for number in range(10):
        assert post(server.url, "/predict/double", {"features": [number]}).status == 200
    totals: list[int] = []

    def look() -> None:
        totals.append(requests(scrape(server))["native", "double", "200"])

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals == [10] * 8
