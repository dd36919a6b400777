"""The guard in the application and in a whole server: every route behind it, and no name that reaches a file."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from webtest import TestApp

from front.attach import Attached
from front.security import ADMIN, OPEN, PREDICT
from inference_server import Settings, create_app
from models.repository import NAME
from tests.application import app_for
from tests.front.conftest import ADMIN_KEY, BEARER, KEY
from tests.harness import SOON_S, Server, fake_http_server, supervised, wait_until

PAGE = "https://page.example"


@pytest.fixture(scope="module")
def workers() -> Iterator[Any]:
    with supervised([{"name": "double"}, {"name": "pair", "size": 2, "narrow": {
        "fields": [{"name": "feature1"}, {"name": "feature2"}], "routes": ["/advanced_predict"],
    }}]) as running:  # fmt: skip
        yield running


def test_every_route_says_which_key_it_needs(workers: Any) -> None:
    app, client = app_for(workers)
    routes = [route for route in app.app.routes if (route.rule, route.method) != ("/", "ANY")]
    needs = {route.config.get("label") or route.rule: route.config.get("key") for route in routes}
    client.close()
    opened = {"/", "/docs", "/static/{name}", "/health", "/ready", "/v2/health/live", "/v2/health/ready"}
    loading = {"/v2/repository/models/{model}/load", "/v2/repository/models/{model}/unload"}
    assert {rule for rule, key in needs.items() if key == OPEN} == opened
    assert {rule for rule, key in needs.items() if key == ADMIN} == {"/metrics", "/status", "/reload"} | loading
    assert {rule for rule, key in needs.items() if key not in (OPEN, ADMIN, PREDICT)} == set()


def test_a_route_that_says_nothing_needs_an_admins_key(workers: Any, keys: dict[str, Any]) -> None:
    app, client = app_for(workers, **keys)
    app.app.get("/new", callback=lambda: "open")
    for key, status in ((None, 401), (KEY, 403), (ADMIN_KEY, 200)):
        app.get("/new", headers={"Authorization": BEARER + key} if key else {}, status=status)
    client.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/predict"), ("POST", "/predict/double"), ("POST", "/classify"), ("POST", "/feedback"),
        ("POST", "/advanced_predict"), ("GET", "/models"), ("GET", "/models/double"), ("GET", "/metrics"),
        ("GET", "/nothing"), ("POST", "/"), ("GET", "/predict"), ("GET", "/status"), ("GET", "/openapi.json"),
        ("OPTIONS", "/predict"), ("HEAD", "/metrics"), ("DELETE", "/models/double"),
    ],
)  # fmt: skip
def test_without_a_key_nothing_is_told_but_health(workers: Any, keys: dict[str, Any], method: str, path: str) -> None:
    app, client = app_for(workers, **keys)
    response = app.request(path, method=method, body=b"", expect_errors=True)
    client.close()
    assert (response.status_int, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    if method != "HEAD":
        assert response.json["error"] == "UNAUTHORIZED"
    assert app.get("/health").status_int == 200


def test_the_address_in_examples_is_the_host_and_no_forwarded_one(workers: Any) -> None:
    app, client = app_for(workers)
    shown = app.get("/models/double", headers={"X-Forwarded-Host": "evil.example;id"}).json["curl"]
    client.close()
    assert "http://localhost:80/predict/double" in shown


TRAVERSALS = [
    f"{prefix}{up * depth}{target}"
    for prefix in ("", "double/", "/")
    for up in ("../", "..%2f", "%2e%2e/", "..\\", "....//", "..%c0%af", "..%00/", "..;/")
    for depth, target in ((1, "etc/passwd"), (8, "etc/passwd"), (3, "double"))
] + [
    "~root",
    "C:\\windows",
    "double%00.keras",
    "double/",
    "%64ouble/1",
    ".",
    "..",
    "double%0a",
    "DOUBLE",
    "d" * 65,
    "\u00e4",
    "-x",
]


def _seen(touched: list[Any], function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    touched.append(args)
    return function(*args, **kwargs)


def test_no_form_of_a_name_reaches_the_file_system(workers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python opens or lists raises an audit event; os.stat does not, so that is watched where it stands."""
    app, client = app_for(workers)
    app.get("/models/double")  # whatever is imported late is imported now
    app.get("/models/nobody", status=404)
    touched: list[Any] = []
    watching = [True]

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if watching[0] and event in ("open", "os.listdir", "os.scandir", "glob.glob", "subprocess.Popen", "os.system"):
            touched.append((event, args))

    sys.addaudithook(audit)  # stays for the rest of the process: it only looks where it is told to
    for function in ("stat", "lstat"):
        monkeypatch.setattr(os, function, partial(_seen, touched, getattr(os, function)))
    statuses = {}
    for form in TRAVERSALS:
        path = quote(form, safe="%/;") if not form.isascii() or "\\" in form else form
        for route in (f"/models/{path}", f"/predict/{path}", f"/predict/double?version={quote(form, safe='%')}"):
            method = "GET" if route.startswith("/models") else "POST"
            body = b"" if method == "GET" else b'{"features":[1]}'
            statuses[route] = app.request(route, method=method, body=body, expect_errors=True).status_int
    watching[0] = False
    client.close()
    assert len(TRAVERSALS) >= 50
    assert {route: status for route, status in statuses.items() if status != 404} == {}
    assert touched == []


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a\\b", "a\0", "a b", "", "a\n", "a" * 65, "-a", "_a", "\u00e4"])
def test_what_is_no_name_is_none(name: str) -> None:
    assert not NAME.fullmatch(name)


# -- in a whole server -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(KEY)
    path.chmod(0o600)
    with fake_http_server([{"name": "double"}], api_key_file=str(path), allowed_origins=PAGE) as running:
        yield running


def asked(server: Server, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of an answer."""
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    connection.request(method, path, b'{"features":[1.5]}', {k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, dict(response.getheaders()), json.loads(body or b"null")


def test_a_listed_page_reads_answers_that_a_worker_gave(server: Server) -> None:
    """The second half of a request knows nothing of its headers any more."""
    status, headers, body = asked(server, "POST", "/predict", Origin=PAGE, Authorization=BEARER + KEY)
    assert (status, body["prediction"]) == (200, 3.0)
    assert headers["Access-Control-Allow-Origin"] == PAGE
    status, headers, _ = asked(server, "POST", "/predict/nobody", Origin=PAGE, Authorization=BEARER + KEY)
    assert (status, headers["Access-Control-Allow-Origin"]) == (404, PAGE)
    assert "Access-Control-Allow-Origin" not in asked(server, "GET", "/health")[1]


def test_a_preflight_needs_no_key_but_a_listed_page(server: Server) -> None:
    asks = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization"}
    status, headers, _ = asked(server, "OPTIONS", "/predict", Origin=PAGE, **asks)
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, PAGE)
    assert "Authorization" in headers["Access-Control-Allow-Headers"]
    assert headers["Access-Control-Allow-Methods"] == "GET, POST"
    status, headers, body = asked(server, "OPTIONS", "/predict", Origin="https://evil.example", **asks)
    assert (status, body["error"]) == (403, "FORBIDDEN")
    assert not [name for name in headers if name.startswith("Access-Control")]


def test_refusals_are_counted_by_route_and_not_by_what_was_asked(server: Server) -> None:
    for number in range(50):
        assert asked(server, "GET", f"/nowhere{number}", Host=f"h{number}.example")[0] == 421
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    connection.request("GET", "/metrics", headers={"Authorization": BEARER + KEY})
    text = connection.getresponse().read().decode()
    connection.close()
    assert 'inference_requests_total{dialect="",model="",route="",status="421",version=""} 50.0' in text
    assert "nowhere" not in text
    assert KEY not in text


def test_a_program_that_embeds_the_application_has_the_same_guard(workers: Any) -> None:
    _, client = app_for(workers)
    app = TestApp(create_app(Settings(allowed_hosts="api.example"), client))
    app.get("/health", status=421)
    app.get("/health", headers={"Host": "api.example"})
    client.close()


def test_keys_are_read_again_on_sighup_by_fronts_of_foreign_servers_too(
    keys: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is no good changes nothing."""
    caplog.set_level("INFO", "inference.front")
    settings = Settings(**keys)
    with supervised([{"name": "double"}]) as running:
        path = os.path.join(running.folder, "socket")
        attached = Attached(path, lambda client, journal: create_app(settings, client, journal), None)
        app = TestApp(attached)

        def opened(*keys: str) -> list[bool]:
            answers = [app.get("/models", headers={"Authorization": BEARER + key}, status="*") for key in keys]
            return [answer.status_int == 200 for answer in answers]

        new = "a-third-key-of-more-than-32-characters"
        assert opened(KEY, new) == [True, False]
        for text, said in (("too short", "the keys stay as they were"), (new, "the keys were read again")):
            before = opened(KEY, new)
            Path(keys["api_key_file"]).write_text(text)
            running.signal(signal.SIGHUP)
            wait_until(lambda said=said: said in caplog.text, SOON_S, said)  # type: ignore[misc]
            assert opened(KEY, new) == (before if text != new else [False, True])
        assert attached._client is not None
        attached._client.close()
