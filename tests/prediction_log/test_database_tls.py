"""How far a connection trusts whom it finds: a real server with a certificate of its own."""

from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from prediction_log.database import Store
from tests.postgres import Postgres
from tests.prediction_log.samples import failure, predictions


@pytest.fixture
def certificate(postgres: Postgres, tmp_path: Path) -> Path:
    """The server's certificate, signed by itself, for 127.0.0.1 and no name; the server shows it from now on."""
    data = postgres.folder / "data"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", str(data / "server.key"), "-out", str(data / "server.crt")]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    for name in ("server.key", "server.crt"):
        postgres.own(data / name)
    postgres.execute("ALTER SYSTEM SET ssl = on")
    postgres.restart()
    copy = tmp_path / "authorities.pem"
    copy.write_bytes((data / "server.crt").read_bytes())
    return copy


def is_encrypted(store: Store) -> bool:
    """Whether the store's connection is."""
    question = text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    return bool(store._run(lambda connection: connection.execute(question).scalar()))


@pytest.mark.parametrize(
    ("query", "encrypted"),
    [
        ("", True),
        ("?sslmode=prefer", True),
        ("?sslmode=require", True),
        ("?sslmode=disable", False),
        ("?sslmode=verify-ca&sslrootcert={}", True),
        ("?sslmode=verify-full&sslrootcert={}", True),
    ],
)
def test_tls_is_used_as_the_url_says(postgres: Postgres, certificate: Path, query: str, encrypted: bool) -> None:
    with closing(Store(postgres.url(query=query.format(certificate)))) as store:
        store.prepare()
        assert is_encrypted(store) is encrypted


@pytest.mark.parametrize("query", ["?sslmode=verify-full", "?sslmode=verify-ca"])
def test_a_certificate_that_nobody_vouches_for_is_refused(postgres: Postgres, certificate: Path, query: str) -> None:
    with closing(Store(postgres.url(query=query))) as store:
        told = failure(store.prepare)
    assert told.said == ("configuration", "")
    assert "certificate" in str(told.error)


@pytest.mark.parametrize(("mode", "refused"), [("verify-full", True), ("verify-ca", False), ("require", False)])
def test_a_certificate_for_another_name_is_refused_by_verify_full(
    postgres: Postgres, certificate: Path, mode: str, refused: bool
) -> None:
    url = postgres.url(query=f"?sslmode={mode}&sslrootcert={certificate}").replace("127.0.0.1", "localhost")
    with closing(Store(url)) as store:
        if refused:
            assert failure(store.prepare).said == ("configuration", "")
        else:
            store.prepare()


def test_a_try_on_a_frozen_server_ends_under_tls_as_well(postgres: Postgres, certificate: Path) -> None:
    with closing(Store(postgres.url())) as store:
        store.prepare()

        def freeze_under_way(connection: Connection) -> None:
            connection.exec_driver_sql("SELECT 1")
            postgres.freeze()
            connection.exec_driver_sql(f"SELECT '{'x' * 20_000_000}'")

        for told in failure(store._run, freeze_under_way), failure(store.insert, "predictions", predictions(1)):
            assert told.said == ("retry", "")
            assert told.seconds < 2.5
        postgres.thaw()
        assert store.insert("predictions", predictions(1)) == 1
