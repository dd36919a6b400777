"""The guard: which requests may pass, what a key opens, and what the files of keys may hold."""

from __future__ import annotations

import hmac
import os
import re
import secrets
import timeit
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from front.security import ADMIN, OPEN, PASS, PREDICT, Guard, Verdict, complaints
from inference_server import Settings
from tests.front.conftest import ADMIN_KEY, BEARER, KEY, OTHER_KEY

PAGE = "https://page.example"


def ask(guard: Guard, needs: str = PREDICT, **headers: str) -> Verdict:
    """The verdict on a POST with these headers (HOST is localhost unless given)."""
    environ = {"REQUEST_METHOD": "POST", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": "localhost:8080"}
    return guard.ask(environ | headers, needs)


# -- Host --------------------------------------------------------------------------------------------------------------

OURS = ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "127.8.9.10:80", "[::1]", "[::1]:8080"]
FOREIGN = [
    "evil.example", "localhost.evil.example", "evil.example:8080", "127.0.0.1.nip.io", "169.254.169.254", "10.0.0.1",
    "[fe80::1]:80", "loopback", "0.0.0.0", "notlocalhost",
]  # fmt: skip
NO_HOSTS = [
    "",
    "a b",
    "localhost:",
    "localhost:x",
    "localhost:123456",
    "user@localhost",
    "localhost/",
    "local\u00e4host",
    "::1",
]


@pytest.mark.parametrize("host", OURS)
def test_on_the_loopback_its_own_names_are_answered_with_any_port(host: str) -> None:
    guard = Guard(Settings())
    assert [ask(guard, HTTP_HOST=host) for _ in range(2)] == [PASS, PASS]


@pytest.mark.parametrize("host", FOREIGN)
def test_on_the_loopback_other_names_are_not(host: str) -> None:
    guard = Guard(Settings())
    assert [ask(guard, HTTP_HOST=host).code for _ in range(2)] == ["WRONG_HOST"] * 2


@pytest.mark.parametrize("host", NO_HOSTS)
@pytest.mark.parametrize("allowed", [None, "*"])
def test_what_is_no_host_is_never_answered(host: str, allowed: str | None) -> None:
    assert ask(Guard(Settings(allowed_hosts=allowed)), HTTP_HOST=host).code == "BAD_INPUT"


def test_elsewhere_and_on_demand_every_name_is_answered() -> None:
    for settings in (Settings(host="0.0.0.0"), Settings(host="192.0.2.1"), Settings(allowed_hosts="*")):
        assert {ask(Guard(settings), HTTP_HOST=host) for host in OURS + FOREIGN} == {PASS}


def test_the_names_that_are_listed_are_the_only_ones() -> None:
    guard = Guard(Settings(host="0.0.0.0", allowed_hosts=" Api.Example ,[::1], b.example:99"))
    for host in ("api.example", "API.example:1234", "[::1]:5", "b.example:99"):
        assert ask(guard, HTTP_HOST=host) == PASS
    for host in ("b.example", "b.example:9", "localhost", "127.0.0.1", "x.api.example"):
        assert ask(guard, HTTP_HOST=host).code == "WRONG_HOST"


def test_only_http_1_0_may_leave_the_host_out() -> None:
    assert ask(Guard(Settings()), HTTP_HOST="", SERVER_PROTOCOL="HTTP/1.0") == PASS


def test_however_many_hosts_come_few_are_remembered() -> None:
    guard = Guard(Settings(allowed_hosts="*"))
    for number in range(5000):
        assert ask(guard, HTTP_HOST=f"h{number}.example") == PASS
    assert len(guard._known_hosts) == 1000


# -- pages of other sites ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"HTTP_SEC_FETCH_SITE": "cross-site"},
        {"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_ORIGIN": "http://localhost:8080"},
        {"HTTP_ORIGIN": "https://evil.example"},
        {"HTTP_ORIGIN": "null"},
        {"HTTP_ORIGIN": ""},
        {"HTTP_ORIGIN": "http://localhost:3000"},
        {"HTTP_ORIGIN": "http://localhost"},
        {"HTTP_ORIGIN": f"{PAGE}.evil.example"},
        {"HTTP_ORIGIN": PAGE.upper()},
    ],
    ids=str,
)
@pytest.mark.parametrize("needs", [OPEN, PREDICT, ADMIN])
def test_a_page_of_another_site_may_not_call(headers: dict[str, str], needs: str) -> None:
    verdict = ask(Guard(Settings(allowed_origins=PAGE)), needs, **headers)
    assert (verdict.code, verdict.headers) == ("FORBIDDEN", ())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"HTTP_SEC_FETCH_SITE": "same-origin"},
        {"HTTP_SEC_FETCH_SITE": "none"},
        {"HTTP_ORIGIN": "http://localhost:8080"},
        {"HTTP_ORIGIN": "https://localhost:8080"},
    ],
    ids=str,
)
def test_our_own_pages_and_programs_may(headers: dict[str, str]) -> None:
    assert ask(Guard(Settings()), **headers) == PASS


def test_a_listed_page_may_call_and_read() -> None:
    guard = Guard(Settings(allowed_origins=f"{PAGE}:443, http://other.example:81"))
    for origin in (PAGE, "http://other.example:81"):
        verdict = ask(guard, HTTP_ORIGIN=origin, HTTP_SEC_FETCH_SITE="cross-site")
        assert verdict.code is None
        assert dict(verdict.headers)["Access-Control-Allow-Origin"] == origin
        assert dict(verdict.headers)["Vary"] == "Origin"


@pytest.mark.parametrize("wrong", ["*", "null", "page.example", "https://page.example/", "https://a b", "https://"])
def test_an_origin_that_is_none_is_refused_at_start(wrong: str) -> None:
    with pytest.raises(ValueError, match="ALLOWED_ORIGINS: "):
        Guard(Settings(allowed_origins=f"{PAGE},{wrong}"))


def test_a_host_that_is_none_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match="ALLOWED_HOSTS: 'http://a'"):
        Guard(Settings(allowed_hosts="http://a"))


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "predict", "admin"),
    [
        (None, "UNAUTHORIZED", "UNAUTHORIZED"),
        ("", "UNAUTHORIZED", "UNAUTHORIZED"),
        ("Bearer", "UNAUTHORIZED", "UNAUTHORIZED"),
        (BEARER + KEY[:-1], "UNAUTHORIZED", "UNAUTHORIZED"),
        (BEARER + KEY + "x", "UNAUTHORIZED", "UNAUTHORIZED"),
        (BEARER + KEY.swapcase(), "UNAUTHORIZED", "UNAUTHORIZED"),
        (BEARER + "\u00e4\u00ff" * 20, "UNAUTHORIZED", "UNAUTHORIZED"),
        (BEARER + "\ud800", "UNAUTHORIZED", "UNAUTHORIZED"),
        (BEARER + "k" * 30_000, "UNAUTHORIZED", "UNAUTHORIZED"),
        (BEARER + "# of the shop", "UNAUTHORIZED", "UNAUTHORIZED"),
        (f"Basic {KEY}", "UNAUTHORIZED", "UNAUTHORIZED"),
        (KEY, "UNAUTHORIZED", "UNAUTHORIZED"),
        (f"{BEARER}{KEY} {KEY}", "UNAUTHORIZED", "UNAUTHORIZED"),
        (BEARER + KEY, None, "FORBIDDEN"),
        (BEARER + OTHER_KEY, None, "FORBIDDEN"),
        (f"bearer   {KEY} ", None, "FORBIDDEN"),
        (BEARER + ADMIN_KEY, "FORBIDDEN", None),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_a_key_opens_its_routes_and_no_others(
    keys: dict[str, Any], given: str | None, predict: str | None, admin: str | None
) -> None:
    guard = Guard(Settings(**keys))
    headers = {} if given is None else {"HTTP_AUTHORIZATION": given}
    assert ask(guard, OPEN, **headers) == PASS
    for needs, code in ((PREDICT, predict), (ADMIN, admin), ("a new kind", admin)):
        verdict = ask(guard, needs, **headers)
        assert verdict.code == code
        assert (("WWW-Authenticate", "Bearer") in verdict.headers) == (code == "UNAUTHORIZED")
        assert KEY not in verdict.message


def test_without_an_admins_file_the_other_keys_open_all(keys: dict[str, Any]) -> None:
    guard = Guard(Settings(api_key_file=keys["api_key_file"]))
    for needs in (PREDICT, ADMIN):
        assert ask(guard, needs, HTTP_AUTHORIZATION=BEARER + KEY) == PASS
        assert ask(guard, needs).code == "UNAUTHORIZED"


def test_with_an_admins_file_alone_predictions_are_open(keys: dict[str, Any]) -> None:
    guard = Guard(Settings(admin_key_file=keys["admin_key_file"]))
    assert ask(guard, PREDICT) == PASS
    assert ask(guard, ADMIN).code == "UNAUTHORIZED"


def test_every_key_is_compared_in_constant_time(keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def seen(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", seen)
    guard = Guard(Settings(**keys))
    for given in (KEY, OTHER_KEY):
        compared.clear()
        assert ask(guard, HTTP_AUTHORIZATION=BEARER + given) == PASS
        assert len(compared) == 2
        assert {len(one) for pair in compared for one in pair} == {32}


def test_a_guard_holds_no_key_in_the_clear(keys: dict[str, Any]) -> None:
    guard = Guard(Settings(**keys))
    assert KEY not in repr(vars(guard))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "there is no key in"),
        (b"# nothing\n\n", "there is no key in"),
        (b"k" * 31, "line 1 of"),
        (b"# a\n" + b"k" * 32 + b"\nshort\n", "line 3 of"),
        (b"k" * 20 + b" " + b"k" * 20, "line 1 of"),
        ("\u00e4".encode() * 20, "line 1 of"),
        (b"k" * 32 + b"\0", "line 1 of"),
        (b"k" * 1025, "line 1 of"),
        (b"k\n" * (1 << 20), "longer than 1 MiB"),
        (None, "No such file or directory"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_file_that_is_no_good_is_refused_at_start_in_one_line(
    text: bytes | None, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "keys"
    if text is not None:
        path.write_bytes(text)
    for setting in ("api_key_file", "admin_key_file"):
        told: dict[str, Any] = {setting: str(path)}
        with pytest.raises(ValueError, match=f"^{setting.upper()}: .*{re.escape(reason)}") as caught:
            Guard(Settings(**told))
        assert "\n" not in str(caught.value)
        assert "short" not in str(caught.value)


def test_keys_are_read_again_and_those_in_use_stay_when_that_fails(keys: dict[str, Any]) -> None:
    guard = Guard(Settings(**keys))
    path = Path(keys["api_key_file"])
    new = secrets.token_urlsafe(32)
    path.write_text(new)
    guard.read_keys()
    assert ask(guard, HTTP_AUTHORIZATION=BEARER + new) == PASS
    assert ask(guard, HTTP_AUTHORIZATION=BEARER + KEY).code == "UNAUTHORIZED"
    path.write_text("too short")
    with pytest.raises(ValueError, match="line 1"):
        guard.read_keys()
    assert ask(guard, HTTP_AUTHORIZATION=BEARER + new) == PASS


def test_a_file_that_everybody_can_read_is_complained_of(keys: dict[str, Any]) -> None:
    os.chmod(keys["api_key_file"], 0o644)
    os.chmod(keys["admin_key_file"], 0o640)
    (complaint,) = complaints(Settings(**keys))
    assert "chmod 600" in complaint
    os.chmod(keys["api_key_file"], 0o600)
    assert complaints(Settings(**keys)) == []


def test_the_guard_costs_a_request_next_to_nothing(keys: dict[str, Any]) -> None:
    environ = {"REQUEST_METHOD": "POST", "HTTP_HOST": "localhost:8080", "HTTP_AUTHORIZATION": BEARER + OTHER_KEY}
    bare, locked = Guard(Settings()), Guard(Settings(**keys))
    seconds = [
        min(timeit.repeat(partial(guard.ask, environ, PREDICT), number=2000, repeat=7)) for guard in (bare, locked)
    ]
    assert max(seconds) / 2000 < 100e-6  # 0.24 us without keys, 1.9 us with two
