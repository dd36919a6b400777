"""Which errors are worth another try, which are a row's fault, and which wait for somebody to change something."""

from __future__ import annotations

import sqlite3
from ssl import SSLCertVerificationError

import pytest
from pg8000.exceptions import InterfaceError
from sqlalchemy.exc import DBAPIError

from prediction_log.sqlstate import leaves_connection_usable, store_error


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        *(
            (code, "retry")
            for code in ("08006", "57P01", "57P03", "53100", "53300", "55P03", "40001", "40P01", "57014")
        ),
        *((code, "row") for code in ("22P02", "22P05", "22003", "23502", "54000")),
        *((code, "configuration") for code in ("42P01", "42501", "42703", "28P01", "28000", "3D000", "0A000")),
        *((code, "retry") for code in ("XX000", "P0001", "25006", "")),
    ],
)
def test_a_servers_error_is_told_by_its_sqlstate(sqlstate: str, kind: str) -> None:
    orig = InterfaceError({"S": "FEHLER", "V": "ERROR", "C": sqlstate, "M": "hunter2", "D": "hunter2"})
    error = store_error(DBAPIError("INSERT hunter2", {}, orig))
    assert (error.kind, error.sqlstate) == (kind, sqlstate)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError("hunter2"), "retry"),
        (ConnectionResetError("hunter2"), "retry"),
        (SSLCertVerificationError("hunter2"), "configuration"),
        (InterfaceError("network error"), "retry"),
        (InterfaceError("Server refuses SSL"), "configuration"),
        (UnicodeDecodeError("utf-8", b"hunter2", 0, 1, "hunter2"), "row"),
        (KeyError("hunter2"), "retry"),
        (sqlite3.ProgrammingError("hunter2"), "retry"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_what_comes_from_no_server_is_told_by_its_type(error: Exception, kind: str) -> None:
    told = store_error(error)
    assert (told.kind, told.sqlstate) == (kind, "")
    assert "hunter2" not in str(told)


@pytest.mark.parametrize(
    ("error", "usable"),
    [
        (InterfaceError({"V": "ERROR", "C": "22P02"}), True),
        (InterfaceError({"V": "FATAL", "C": "57P01"}), False),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), False),
        (TimeoutError(), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_only_a_plain_refusal_leaves_a_connection_in_step(error: BaseException, usable: bool) -> None:
    assert leaves_connection_usable(error) is usable
