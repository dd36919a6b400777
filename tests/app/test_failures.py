"""Every way in which a model does not answer, and what the caller hears."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from webtest import TestApp, TestResponse

from tests.application import app_for, refused
from tests.fakes import POISON
from tests.harness import SOON_S, Gate, gate, supervised


def test_a_model_error_fails_its_own_request_alone(app: TestApp) -> None:
    body = refused(app.post_json("/predict/poison", {"features": [POISON]}, status=500), "PREDICT_FAILED")
    assert body["reason"] == "model_error"
    assert "poison" not in body["message"]
    assert app.post_json("/predict/poison", {"features": [1]}).json["prediction"] == 2.0


@pytest.mark.parametrize("name", ["short", "nan"])
def test_outputs_that_cannot_be_carried_are_bad_output(app: TestApp, name: str) -> None:
    body = refused(app.post_json(f"/predict/{name}", {"features": [1]}, status=500), "PREDICT_FAILED")
    assert body["reason"] == "bad_output"


def test_a_deadline_of_the_clients_own_is_kept(app: TestApp) -> None:
    headers = {"X-Request-Timeout-Ms": "50"}
    refused(app.post_json("/predict/slow", {"features": [1]}, headers=headers, status=504), "TIMEOUT")
    assert app.post_json("/predict/slow", {"features": [1]}).json["prediction"] == 2.0


@pytest.mark.parametrize("given", ["0", "-5", "soon", "1.5", "9" * 30])
def test_a_deadline_that_is_none_is_refused(app: TestApp, given: str) -> None:
    headers = {"X-Request-Timeout-Ms": given}
    refused(app.post_json("/predict/slow", {"features": [1]}, headers=headers, status=400), "BAD_INPUT")


def test_a_model_that_failed_to_load_is_not_ready_and_says_why_elsewhere(app: TestApp) -> None:
    response = app.post_json("/predict/refused", {"features": [1]}, status=503)
    refused(response, "NOT_READY")
    assert response.headers["Retry-After"]


def test_before_a_worker_is_ready_health_is_up_and_predictions_are_not_ready() -> None:
    with supervised([{"name": "late", "kind": "slow_refusal", "seconds": 30}], wait=False) as server:
        app, client = app_for(server)
        assert app.get("/health").status_int == 200
        assert refused_ready(app) == [("late", "LOADING")]
        response = app.post_json("/predict", {"features": [1]}, status=503)
        refused(response, "NOT_READY")
        assert response.headers["Retry-After"]
        client.close()


def refused_ready(app: TestApp) -> list[tuple[str, str]]:
    response = app.get("/ready", status=503)
    assert response.json["ok"] is False
    return [(model["name"], model["state"]) for model in response.json["models"]]


@pytest.fixture
def held() -> Iterator[Gate]:
    with gate() as made:
        yield made


def test_a_full_queue_is_overloaded(held: Gate) -> None:
    with supervised([held.model(), {"name": "free"}], queue_rows=1) as server:
        app, client = app_for(server, queue_rows=1, default_model="gated")
        first, other = app_for(server, queue_rows=1, default_model="gated")
        answers: list[TestResponse] = []
        thread = in_thread(lambda: answers.append(first.post_json("/predict", {"features": [1]})))
        call = held.next_call()
        waiting = in_thread(lambda: answers.append(app.post_json("/predict", {"features": [2]})))
        # The one row that may be in flight from this client is on its way: the next is refused at once.
        response = until_refused(app)
        refused(response, "OVERLOADED")
        assert response.headers["Retry-After"]
        call.let_go()
        held.next_call().let_go()
        thread.join(SOON_S)
        waiting.join(SOON_S)
        assert sorted(answer.json["prediction"] for answer in answers) == [2.0, 4.0]
        client.close()
        other.close()


def until_refused(app: TestApp) -> TestResponse:
    from tests.harness import wait_until

    def refusal() -> TestResponse | None:
        response = app.post_json("/predict", {"features": [3]}, headers={"X-Request-Timeout-Ms": "20"}, status="*")
        return response if response.json.get("error") == "OVERLOADED" else None

    found = wait_until(refusal, SOON_S, "an overloaded answer")
    assert found is not None
    return found


def in_thread(function: Callable[[], object]) -> Any:
    import threading

    thread = threading.Thread(target=function)
    thread.start()
    return thread


def test_a_defect_of_ours_is_internal_error_and_tells_nothing(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    app, client = app_for(server)
    client.call = lambda *_: (_ for _ in ()).throw(RuntimeError("secret /etc/passwd"))  # type: ignore[method-assign]
    body = refused(app.post_json("/predict/poison", {"features": [1]}, status=500), "INTERNAL_ERROR")
    assert "secret" not in str(body)
    assert body["request_id"] in caplog.text
    client.close()
