"""What DATABASE_URL may say, and that nothing which is wrong with it is ever repeated."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from prediction_log.address import File, Limits, Server, parse
from tests.postgres import DATABASE, PASSWORD, ROLE, Postgres

LIMITS = Limits(2.0, 1500, 500)


@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql", "postgresql+pg8000", "postgresql+psycopg2", "postgresql+psycopg"]
)
def test_postgresql_is_reached_whatever_driver_the_url_names(postgres: Postgres, scheme: str) -> None:
    found = parse(postgres.url(scheme))
    assert isinstance(found, Server)
    assert (found.user, found.password, found.database, found.port) == (ROLE, PASSWORD, DATABASE, postgres.port)
    connection, handle = found.connect(LIMITS)
    handle.close()
    connection.close()


def test_what_a_url_leaves_out_is_what_it_usually_is() -> None:
    assert parse("postgresql://me@") == Server("localhost", 5432, None, "me", "", None)


def test_a_server_shows_no_password() -> None:
    assert "hunter2" not in repr(parse("postgresql://me:hunter2@db/log"))


def test_sqlite_is_a_path_alone(tmp_path: Path) -> None:
    assert parse("sqlite:///log.db") == File("log.db")
    assert parse(f"sqlite:///{tmp_path}/log.db") == File(f"{tmp_path}/log.db")


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "me:hunter2@db/log",
        "mysql://me:hunter2@db/log",
        "hunter2://db",
        "postgresql://me:hunter2/log",
        "postgresql://me:p@hunter2@db/log",
        "postgresql://me:p@hunter2:x@db/log",
        "postgresql://me:p@hunter2/x@db/log",
        "postgresql://:hunter2@db/log",
        "postgresql://me:p@db:hunter2/log",
        "postgresql://me:p@db/log?password=hunter2",
        "postgresql://me:p@db/log?sslmode=hunter2",
        "postgresql://me:p@db/log?sslmode=require&sslmode=hunter2",
        "postgresql://me:p@db/log?sslmode=verify-full&sslrootcert=hunter2",
        "postgresql://me:p@db/log?sslrootcert=a&sslrootcert=hunter2&sslmode=verify-full",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite://hunter2/log.db",
        "sqlite:///log.db?key=hunter2",
    ],
)
def test_a_url_that_is_refused_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="DATABASE_URL") as caught:
        parse(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("query", "verify", "names"),
    [
        ("?sslmode=verify-ca", ssl.CERT_REQUIRED, False),
        ("?sslmode=verify-full", ssl.CERT_REQUIRED, True),
    ],
)
def test_certificates_are_checked_as_far_as_sslmode_says(query: str, verify: int, names: bool) -> None:
    found = parse(f"postgresql://me@db/log{query}")
    assert isinstance(found, Server)
    assert (found.ssl_context.verify_mode, found.ssl_context.check_hostname) == (verify, names)
