"""schemathesis against a server: every check on cases made from its own document. Owns how they are made and counted.

What schemathesis cannot know is told here: what a picture is, that a body is compressed where its header says so, and
that an answer to a request with a deadline of a millisecond may be that it passed.
"""

from __future__ import annotations

import base64
import gzip
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import schemathesis
from hypothesis import strategies
from schemathesis.engine import events, from_schema

from models.dialects.native_schema import PICTURE_TYPES
from models.dialects.schema_parts import plain_png

PICTURES = [plain_png(side) for side in (1, 8, 30)]
schemathesis.openapi.format("picture", strategies.sampled_from([base64.b64encode(one).decode() for one in PICTURES]))
schemathesis.openapi.format("picture-file", strategies.sampled_from(PICTURES))
for media_type in PICTURE_TYPES:
    schemathesis.openapi.media_type(media_type, strategies.sampled_from(PICTURES))

# 501, 503 and 504 are documented answers to what is not offered, to too much at once and to a deadline that passed.
REFUSALS = ["501", "503", "504"]
SHORT_MS = 10_000  # whoever gives less than this may hear so on a busy machine
CONFIGURATION: dict[str, Any] = {
    "generation": {
        "deterministic": True,
        "database": "none",
        "no-shrink": True,
        # HTTP lets anybody add headers and parameters that nobody has to know. Bodies are not touched by this.
        "allow-extra-parameters": False,
    },
    "checks": {
        "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", *REFUSALS]},
        "negative_data_rejection": {
            "expected-statuses": ["400", "401", "403", "404", "405", "413", "415", *REFUSALS],  # 413: too many rows
        },
    },
    "phases": {"stateful": {"enabled": False}},  # no operation's answer is another's parameter
    "workers": 1,
}


class Finding(NamedTuple):
    """One check that one operation did not pass, and the case that shows it."""

    check: str
    operation: str
    told: str


class Run(NamedTuple):
    """What came of it. statuses: status -> how often. unexcused_5xx: those to requests without a short deadline."""

    cases: int
    statuses: Counter[int]
    unexcused_5xx: list[str]
    findings: list[Finding]
    problems: list[str]


class Compressing:
    """A body is compressed where the case's header says so."""

    def __call__(self, prepared: Any) -> Any:
        coding = prepared.headers.get("Content-Encoding")
        packers: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
        pack = packers.get(coding)
        if prepared.body and pack is not None:
            body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body
            prepared.body = pack(body)
            prepared.headers["Content-Length"] = str(len(prepared.body))
        return prepared


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """What schemathesis asks of every case before it is sent."""
    kwargs["auth"] = Compressing()


def run(url: str, paths: str, max_examples: int, *, but: str = "^$", **more: Any) -> Run:
    """Every check on the operations whose path matches `paths`, and not `but`. more: further configuration."""
    generation = {**CONFIGURATION["generation"], "max-examples": max_examples}
    checks = {**CONFIGURATION["checks"], **more.pop("checks", {})}
    told = {**CONFIGURATION, "generation": generation, "checks": checks, **more}
    schema = schemathesis.openapi.from_url(
        f"{url}/openapi.json", config=schemathesis.Config.from_dict(told), headers=more.get("headers", {})
    )
    done = Run(0, Counter(), [], [], [])
    cases = 0
    for event in from_schema(schema.include(path_regex=paths).exclude(path_regex=but)).execute():
        if isinstance(event, events.ScenarioFinished):
            cases += len(event.recorder.interactions)
            _count(done, event.recorder)
        elif isinstance(event, events.NonFatalError | events.FatalError):
            done.problems.append(str(getattr(event, "value", getattr(event, "exception", event))))
    return done._replace(cases=cases)


def _count(done: Run, recorder: Any) -> None:
    for case, interaction in recorder.interactions.items():
        request, response = interaction.request, interaction.response
        shown = f"{request.method} {request.uri}"
        if response is None:
            done.problems.append(f"{shown}: no answer")
            continue
        done.statuses[response.status_code] += 1
        deadline = request.headers.get("X-Request-Timeout-Ms", [""])[0]
        if response.status_code >= 500 and not _is_short(deadline):
            done.unexcused_5xx.append(f"{shown}: {response.status_code} {response.content!r}")
        for check in recorder.checks.get(case, ()):
            if check.failure_info is not None:
                failure = check.failure_info.failure
                told = f"{failure.title}: {failure.message}\n{shown} {_body(request)!r}\n{response.content[:500]!r}"
                done.findings.append(Finding(check.name, recorder.label, told))


def _is_short(deadline: str) -> bool:
    return deadline.isdigit() and int(deadline) < SHORT_MS


def _body(request: Any) -> bytes:
    return base64.b64decode(request.encoded_body)[:500] if request.encoded_body else b""
