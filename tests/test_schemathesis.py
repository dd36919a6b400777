"""The server is what its OpenAPI document says: schemathesis, with all checks, finds nothing on the native routes.

Under /v1 and /v2 it finds what the original protocols demand, and nothing else: the list says which clause does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from tests import generated
from tests.documented import DOUBLE, MODELS
from tests.faults.asking import ask
from tests.front.conftest import ADMIN_KEY, KEY
from tests.generated import Finding, Run
from tests.harness import Server, fake_http_server

NATIVE = "^/(?!v1|v2|reload)"
PROTOCOLS = "^/(v1|v2)"
# Whether these succeed is for the folder of models to say, not for the request: they have a test of their own.
CHANGING = "^/reload$|/(un)?load$"
# Schemas that were tried under another path, or are of the same kind as another model's.
REPEATED = "/versions/[0-9]|^/predict/(house|words)$|^/classify/picture$|^/v./models/(words|vector|scalar|picture)"
# Its answers are NaN: null on the native routes, bare words in /v1, and 500 where /v2 is asked for the best class.
NAN_BUT_IN_V1 = "^/predict/nans|^/v2/models/nans"


class Clause(NamedTuple):
    """A finding that the original protocol demands. operation: a pattern of "VERB path".

    example: a request that shows it, as VERB, path, body, the status and a part of the answer's body.
    """

    check: str
    operation: str
    demand: str
    example: tuple[str, str, Any, int, bytes]


TOO_MANY = {"inputs": [{"name": "x", "datatype": "INT32", "shape": [1, 1, 3], "data": [1, 2, 3, 4]}]}
DEMANDED = (
    Clause(
        "unsupported_method",
        r"\w+ /v1/",
        "TensorFlow Serving, http_rest_api_handler.cc: what matches no pattern, verb included, is INVALID_ARGUMENT, 400"
        " 'Malformed request: VERB path'; there is no 405",
        ("PUT", "/v1/models/double", {}, 400, b"Malformed request: PUT"),
    ),
    Clause(
        "response_schema_conformance",
        r"POST /v1/models/.*:(predict|regress)",
        "TensorFlow Serving, RESTful API, 'JSON conformance': NaN and infinities leave as bare tokens, which no schema"
        " of JSON describes",
        ("POST", "/v1/models/nans:predict", {"instances": [[1.0]]}, 200, b"NaN"),
    ),
    Clause(
        "positive_data_acceptance",
        r"POST /v1/models/(mixed|open):predict",
        "TensorFlow Serving, json_tensor.cc: 1.0 is no integer there ('is not of expected type: int64'), in JSON Schema"
        " it is; and columns have one length, which JSON Schema cannot say",
        ("POST", "/v1/models/open:predict", {"instances": [[[1.0, 2.0, 3.0]]]}, 400, b"is not of expected type"),
    ),
    Clause(
        "negative_data_rejection",
        r"POST /v1/models/.*:(classify|regress)",
        "TensorFlow Serving, RESTful API, 'Classify and Regress': features of `context` stand for those that the"
        " examples lack, so no feature of an example is required",
        ("POST", "/v1/models/scalar:regress", {"context": {"age": 1.0}, "examples": [{}]}, 200, b"results"),
    ),
    Clause(
        "positive_data_acceptance",
        r"GET /v1/models/\{model\}/labels/",
        "TensorFlow Serving: an unknown label is INVALID_ARGUMENT, 400 'Unrecognized servable version label', not 404",
        ("GET", "/v1/models/double/labels/none", None, 400, b"Unrecognized servable version label"),
    ),
    Clause(
        "positive_data_acceptance",
        r"POST /v2/models/.*/infer",
        "Open Inference Protocol, 'Tensor Data': `data` has as many elements as `shape` says, and the batch dimensions"
        " of all inputs are equal, which JSON Schema cannot say",
        ("POST", "/v2/models/open/infer", TOO_MANY, 400, b"error"),
    ),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With a prediction log, so that feedback has a place."""
    folder = tmp_path_factory.mktemp("log")
    database = f"sqlite:///{folder / 'log.db'}"
    settings: dict[str, Any] = {"database_url": database, "prediction_log_dir": str(folder / "spool")}
    with fake_http_server(MODELS, default_model="house", predict_timeout_ms=60_000.0, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def protocols(server: Server) -> Run:
    return generated.run(server.url, PROTOCOLS, 10, but=f"{CHANGING}|{REPEATED}|{NAN_BUT_IN_V1}")


def shown(findings: list[Finding]) -> str:
    return "\n\n".join(f"{one.check}, {one.operation}: {one.told}" for one in findings[:20])


def test_the_native_routes_are_as_the_document_says(server: Server) -> None:
    run = generated.run(server.url, NATIVE, 10, but=f"{REPEATED}|{NAN_BUT_IN_V1}")
    assert not run.findings, shown(run.findings)
    assert not run.problems
    assert not run.unexcused_5xx
    assert run.statuses[500] == 0
    assert run.cases >= 2000


def test_the_protocols_are_as_the_document_says_but_for_what_they_demand(protocols: Run) -> None:
    others = [one for one in protocols.findings if not any(map(one_is(one), DEMANDED))]
    assert not others, shown(others)
    assert not protocols.problems
    assert protocols.statuses[500] == 0
    assert protocols.cases >= 1000


@pytest.mark.parametrize("clause", DEMANDED, ids=lambda clause: f"{clause.check} {clause.operation}")
def test_each_demand_of_the_protocols_is_still_met(server: Server, clause: Clause) -> None:
    verb, path, body, status, told = clause.example
    assert re.match(clause.operation.replace(r"\{model\}", "double"), f"{verb} {path}")
    said = ask(server.url, verb, path, None if body is None else orjson.dumps(body))
    assert said.status == status, said.body
    assert told in said.body


def one_is(finding: Finding) -> Callable[[Clause], bool]:
    """Whether a clause demands this finding."""
    return lambda clause: clause.check == finding.check and bool(re.match(clause.operation, finding.operation))


def test_what_changes_the_server_is_as_the_document_says() -> None:
    # 400: there is nothing to go back to, or no such model in the folder.
    decided = {"positive_data_acceptance": {"expected-statuses": ["2xx", "400", "404", "5xx"]}}
    with fake_http_server([DOUBLE], planned=True) as server:
        run = generated.run(server.url, CHANGING, 5, checks=decided)
    assert not run.findings, shown(run.findings)
    assert not run.problems
    assert run.statuses[200]


def test_where_there_are_keys_each_route_asks_for_its_own(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{KEY}\n{ADMIN_KEY}")  # who may see the metrics may see the document
    (tmp_path / "admin").write_text(ADMIN_KEY)
    settings: dict[str, Any] = {"api_key_file": str(tmp_path / "keys"), "admin_key_file": str(tmp_path / "admin")}
    with fake_http_server([DOUBLE], **settings) as server:
        for paths, key in (("^/(models|predict|openapi)", KEY), ("^/(metrics|status)", ADMIN_KEY)):
            run = generated.run(server.url, paths, 3, headers={"Authorization": f"Bearer {key}"})
            assert not run.findings, shown(run.findings)
            assert run.statuses[200]
            assert run.statuses[401]
