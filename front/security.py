"""Who may ask: the Host allow-list, web pages of other sites, API keys. Asked once for each request, before its route.

Owns those three rules and the files of keys. Knows no routes (each declares the key it needs, and one that does not
needs an admin's) and no HTTP server: a request is its WSGI environment. It imports nothing heavy, since the supervisor
checks the settings with it before it listens.

Keys are kept as SHA-256 digests alone, so no repr, dump or error can show one.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from front.settings import Settings

log = logging.getLogger("inference.front")

# Which key a route needs.
OPEN, PREDICT, ADMIN = "open", "predict", "admin"

KEY_CHARS_MIN, KEY_CHARS_MAX = 32, 1024
KEY_FILE_BYTES_MAX = 1 << 20
PREFLIGHT_S = 600

Headers = tuple[tuple[str, str], ...]

_KEY = re.compile(r"[!-~]+").fullmatch
_NAME = r"(?:\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9._-]{0,252}[a-z0-9_])?)"
_HOST = re.compile(rf"(?P<name>{_NAME})(?::(?P<port>[0-9]{{1,5}}))?").fullmatch
_ORIGIN = re.compile(rf"[a-z][a-z0-9+.-]{{0,31}}://{_NAME}(?::[0-9]{{1,5}})?").fullmatch
_DEFAULT_PORT = re.compile(r"(http://.*):80|(https://.*):443")
# Hosts met and found right, so that the next request costs one look-up. Ports are free, so there may be many.
_KNOWN_HOSTS_MAX = 1000

_CHALLENGE: Headers = (("WWW-Authenticate", "Bearer"),)
_PREFLIGHT: Headers = (
    ("Access-Control-Allow-Methods", "GET, POST"),
    ("Access-Control-Allow-Headers", "Authorization, Content-Type, Traceparent, X-Request-Id, X-Request-Timeout-Ms"),
    ("Access-Control-Max-Age", str(PREFLIGHT_S)),
)
_EXPOSED = ("Access-Control-Expose-Headers", "X-Request-Id, Retry-After, Server-Timing")


class Verdict(NamedTuple):
    """What is to become of a request.

    code, message: of the refusal (front.refusals.STATUS); code is None where the request may pass.
    headers: go with the answer whatever it is. is_answer: they are the whole answer, to a preflight.
    """

    code: str | None = None
    message: str = ""
    headers: Headers = ()
    is_answer: bool = False


PASS = Verdict()


class Guard:
    """The rules that one server's settings make. Raises ValueError for those that cannot be meant.

    serial: another number whenever the keys have been read: what was allowed before must be asked again.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hosts, self._loopback = _hosts(settings)
        self._known_hosts: set[str] = set()
        self._origins = _origins(settings.allowed_origins)
        self._keys: dict[str, frozenset[bytes]] = {}
        self.serial = 0
        self.read_keys()

    def read_keys(self) -> None:
        """Take the keys from their files, again if need be; those in use stay where a file is no good.

        Raises ValueError with one line for the operator.
        """
        files = {PREDICT: self._settings.api_key_file, ADMIN: self._settings.admin_key_file}
        keys = {need: _digests(need, path) for need, path in files.items() if path is not None}
        if PREDICT in keys:
            keys.setdefault(ADMIN, keys[PREDICT])
        self._keys = keys
        self.serial += 1

    def read_keys_again(self) -> None:
        """The same where nobody waits for what is wrong with them: it is logged, and the keys stay as they were."""
        try:
            self.read_keys()
        except ValueError as error:
            log.error("the keys stay as they were: %s", error)  # noqa: TRY400 - the operator's mistake, not ours
        else:
            log.info("the keys were read again")

    def ask(self, environ: Mapping[str, Any], needs: str) -> Verdict:
        """Whether a request may go to a route that needs this key."""
        host = environ.get("HTTP_HOST", "")
        if host not in self._known_hosts and (refused := self._unknown_host(host, environ)) is not None:
            return refused
        origin, is_cross_site = environ.get("HTTP_ORIGIN"), environ.get("HTTP_SEC_FETCH_SITE") == "cross-site"
        if origin is None and not is_cross_site:
            return PASS if needs == OPEN or not self._keys else self._ask_key(environ, needs)
        headers: Headers = ()
        if origin is not None and origin in self._origins:
            headers = (
                ("Access-Control-Allow-Origin", origin),
                ("Vary", "Origin"),
                ("Timing-Allow-Origin", origin),
                _EXPOSED,
            )
            if environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
                return Verdict(headers=headers + _PREFLIGHT, is_answer=True)  # it never carries a key
        elif is_cross_site or origin is None or not _is_own(origin, host):
            return Verdict("FORBIDDEN", "pages of other sites may not call this server; ALLOWED_ORIGINS names those")
        verdict = PASS if needs == OPEN or not self._keys else self._ask_key(environ, needs)
        return verdict._replace(headers=headers + verdict.headers) if headers else verdict

    def _unknown_host(self, host: str, environ: Mapping[str, Any]) -> Verdict | None:
        """The refusal of a Host not met before; None for a good one, which is known from now on."""
        if not host:
            if environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
                return None
            return Verdict("BAD_INPUT", "the request has no Host header")
        match = _HOST(host.lower())
        if match is None:
            return Verdict("BAD_INPUT", "the Host header is no name or address with a port")
        name = match["name"]
        hosts = self._hosts
        if hosts is not None and not (name in hosts or match[0] in hosts or (self._loopback and _is_loopback(name))):
            return Verdict("WRONG_HOST", f"this server does not answer to the name {name[:64]}; see ALLOWED_HOSTS")
        if len(self._known_hosts) < _KNOWN_HOSTS_MAX:
            self._known_hosts.add(host)
        return None

    def _ask_key(self, environ: Mapping[str, Any], needs: str) -> Verdict:
        keys = self._keys.get(needs) if needs == PREDICT else self._keys[ADMIN]
        if keys is None:
            return PASS
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer":
            return Verdict("UNAUTHORIZED", "this route needs a key: Authorization: Bearer KEY", _CHALLENGE)
        digest = sha256(given.strip(" ").encode("utf-8", "surrogatepass")).digest()
        if _is_among(digest, keys):
            return PASS
        if any(_is_among(digest, others) for others in self._keys.values()):
            return Verdict("FORBIDDEN", "this key is not for this route")
        return Verdict("UNAUTHORIZED", "the key is not known here", _CHALLENGE)


class Shared:
    """An exchange whose answer another site's page may read: as it is, with headers of its own.

    The second half of a request runs where its environment is gone, so the headers go along.
    """

    def __init__(self, exchange: Any, headers: Headers) -> None:
        self._exchange = exchange
        self._headers = headers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exchange, name)

    def repeatable(self) -> None:
        """The next request with the same header must be asked for its headers, too."""

    def answer(self, outcomes: Any) -> Any:
        return self._with_headers(self._exchange.answer(outcomes))

    def fail(self, error: Exception) -> Any:
        return self._with_headers(self._exchange.fail(error))

    def _with_headers(self, response: Any) -> Any:
        return response._replace(headers=[*response.headers, *self._headers])


def complaints(settings: Settings) -> list[str]:
    """What works but should not be so, in words for the operator."""
    found = []
    for path in filter(None, (settings.api_key_file, settings.admin_key_file)):
        with suppress(OSError):
            if Path(path).stat().st_mode & stat.S_IROTH:
                found.append(f"every user of this machine can read the keys in {Path(path).name}: chmod 600 it")
    return found


# -- what the settings say ---------------------------------------------------------------------------------------------


def _hosts(settings: Settings) -> tuple[frozenset[str] | None, bool]:
    """The names to answer to (None for all), and whether to all of the loopback's besides."""
    if settings.allowed_hosts is None:
        return (frozenset(), True) if _is_loopback(settings.host) else (None, False)
    names = _listed(settings.allowed_hosts)
    if "*" in names:
        return None, False
    for name in names:
        if not _HOST(name):
            raise ValueError(f"ALLOWED_HOSTS: {name[:64]!r} is no name or address, such as example.com or [::1]:8080")
    return frozenset(names), False


def _origins(text: str | None) -> frozenset[str]:
    """The sites whose pages may call."""
    found = set()
    for origin in _listed(text or ""):
        if not _ORIGIN(origin):
            raise ValueError(f"ALLOWED_ORIGINS: {origin[:64]!r} is no origin, such as https://example.com")
        default = _DEFAULT_PORT.fullmatch(origin)  # browsers leave it out
        found.add((default[1] or default[2]) if default else origin)
    return frozenset(found)


def _listed(text: str) -> list[str]:
    return [one.strip().lower() for one in text.split(",") if one.strip()]


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _is_own(origin: str, host: str) -> bool:
    """Whether it is a page of this very server; what stands before it may speak TLS."""
    origin, host = origin.lower(), host.lower()
    return bool(host) and origin in (f"http://{host}", f"https://{host}")


# -- keys --------------------------------------------------------------------------------------------------------------


def _is_among(digest: bytes, keys: Iterable[bytes]) -> bool:
    """Compare with every key, each in constant time: how long it takes says nothing of any."""
    found = False
    for key in keys:
        found |= hmac.compare_digest(digest, key)
    return found


def _digests(need: str, path: str) -> frozenset[bytes]:
    """Of the keys in a file: one a line; empty lines and those that begin with # are passed over."""
    setting = "API_KEY_FILE" if need == PREDICT else "ADMIN_KEY_FILE"
    try:
        with Path(path).open("rb") as file:
            text = file.read(KEY_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"{setting}: {path} cannot be read: {error.strerror}") from None
    if len(text) > KEY_FILE_BYTES_MAX:
        raise ValueError(f"{setting}: {path} is no file of keys: it is longer than 1 MiB")
    found = set()
    for number, line in enumerate(text.decode("latin-1").splitlines(), 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if not KEY_CHARS_MIN <= len(key) <= KEY_CHARS_MAX or not _KEY(key):
            raise ValueError(
                f"{setting}: line {number} of {path} is no key: that is {KEY_CHARS_MIN} or more letters, digits and "
                "signs without blanks (python -c 'import secrets; print(secrets.token_urlsafe(32))')"
            )
        found.add(sha256(key.encode()).digest())
    if not found:
        raise ValueError(f"{setting}: there is no key in {path}")
    return frozenset(found)
