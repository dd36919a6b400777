"""What went wrong with the database, and what the caller may do about it. Owns the classes of errors and their words.

The words are ours: what a server or driver says may repeat a row or a secret. Knows nothing of connections and tables.
"""

from __future__ import annotations

import sqlite3
import ssl
from typing import Literal

from pg8000.exceptions import InterfaceError

Kind = Literal["retry", "row", "configuration"]

# SQLSTATE, or the two digits of its class: whose fault it is, and in words. What is not listed is tried again: data is
# kept, and what never heals shows by its age.
_SQLSTATES: dict[str, tuple[Kind, str]] = {
    "08": ("retry", "the connection to the database failed"),
    "0A": ("configuration", "the database refuses to change a table that something else depends on, such as a view"),
    "22": ("row", "a value does not fit its column"),
    "23": ("row", "a row breaks a constraint of its table"),
    "25006": ("retry", "the database is read-only"),
    "28": ("configuration", "the database does not accept the user or the password"),
    "3D": ("configuration", "the database named in DATABASE_URL does not exist"),
    "3F": ("configuration", "the user's search_path names no schema"),
    "40": ("retry", "the transaction clashed with another one"),
    "42": ("configuration", "a table of the prediction log is not as it should be"),
    "42501": ("configuration", "the database's user lacks a permission"),
    "42P01": ("configuration", "a table of the prediction log is missing"),
    "53": ("retry", "the database is short of resources"),
    "53100": ("retry", "the database's disk is full"),
    "53300": ("retry", "the database has no connection left"),
    "54": ("row", "a row exceeds a limit of the database"),
    "55P03": ("retry", "a table of the prediction log is locked"),
    "57014": ("retry", "the database cancelled a statement that took too long"),
    "57P": ("retry", "the database is shutting down or starting"),
}
# The same for sqlite's names, by their beginning.
_SQLITE: dict[str, tuple[Kind, str]] = {
    "SQLITE_BUSY": ("retry", "the database file is locked"),
    "SQLITE_CANTOPEN": ("configuration", "the database file cannot be opened"),
    "SQLITE_CONSTRAINT": ("row", "a row breaks a constraint of its table"),
    "SQLITE_CORRUPT": ("configuration", "the database file is damaged"),
    "SQLITE_ERROR": ("configuration", "a table of the prediction log is not as it should be"),
    "SQLITE_FULL": ("retry", "the database's disk is full"),
    "SQLITE_IOERR": ("retry", "the database file cannot be read or written"),
    "SQLITE_MISMATCH": ("row", "a value does not fit its column"),
    "SQLITE_NOTADB": ("configuration", "the file is no sqlite database"),
    "SQLITE_PERM": ("configuration", "the database file may not be used"),
    "SQLITE_READONLY": ("configuration", "the database file may not be written to"),
    "SQLITE_TOOBIG": ("row", "a row exceeds a limit of the database"),
}
# What pg8000 says itself when trying again is of no use, by its beginning.
_REFUSALS = {
    "Server refuses SSL": "the database offers no TLS, and DATABASE_URL requires it",
    "Authentication method": "the database asks for a kind of authentication that the driver does not know",
}


class StoreError(Exception):
    """The database did not do it. The text is safe to show: no data, no secret, no path.

    kind: "retry": later, with the same rows. "row": one of the rows is at fault, the others will do without it.
        "configuration": not until somebody changes something.
    sqlstate: the server's code, sqlite's name of the error, or empty.
    """

    def __init__(self, kind: Kind, sqlstate: str, words: str) -> None:
        super().__init__(f"{words} ({sqlstate})" if sqlstate else words)
        self.kind = kind
        self.sqlstate = sqlstate


def store_error(error: Exception) -> StoreError:
    """What an exception of SQLAlchemy, a driver or the socket means."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, InterfaceError) and isinstance(
        cause.__cause__, OSError
    ):  # as writing fails; reading lets it out
        cause = cause.__cause__
    if reply := _reply(cause):
        sqlstate = reply["C"]
        kind, words = _listed(_SQLSTATES, sqlstate) or ("retry", "the database failed")
        return StoreError(kind, sqlstate, words)
    if isinstance(cause, sqlite3.Error):
        return _sqlite_error(cause)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return StoreError("configuration", "", "the database's certificate is not trusted")
    if isinstance(cause, TimeoutError):
        return StoreError("retry", "", "the database did not answer in time")
    if isinstance(cause, OSError):
        return StoreError("retry", "", "the database cannot be reached")
    if isinstance(cause, UnicodeError):
        return StoreError("row", "", "a row is no UTF-8 text")
    for beginning, words in _REFUSALS.items():
        if str(cause).startswith(beginning):
            return StoreError("configuration", "", words)
    if isinstance(cause, InterfaceError):
        return StoreError("retry", "", "the connection to the database was lost")
    return StoreError("retry", "", f"the database's driver failed: {type(cause).__name__}")


def leaves_connection_usable(error: BaseException) -> bool:
    """Whether the two ends still agree on where they are. After all but a plain refusal by the server they may not.

    A text that cannot be encoded breaks off in the middle of a message, for one: the next question on that connection
    would get this one's answer, for ever.
    """
    cause = getattr(error, "orig", None) or error
    reply = _reply(cause)
    return isinstance(cause, StoreError | sqlite3.Error) or (reply is not None and reply.get("V") == "ERROR")


def _reply(cause: BaseException) -> dict[str, str] | None:
    """The fields of a server's error message: C is its SQLSTATE, V its severity, in English whatever the server's."""
    first = cause.args[0] if cause.args else None
    return first if isinstance(first, dict) and "C" in first else None


def _sqlite_error(error: sqlite3.Error) -> StoreError:
    name: str = getattr(error, "sqlite_errorname", "")
    if str(error) == "malformed JSON":  # else an SQLITE_ERROR like a missing table
        return StoreError("row", name, "a row is no JSON")
    kind, words = _listed(_SQLITE, name) or ("retry", "the database failed")
    return StoreError(kind, name, words)


def _listed(table: dict[str, tuple[Kind, str]], code: str) -> tuple[Kind, str] | None:
    """The entry of the longest beginning of `code`."""
    return next((table[code[:end]] for end in range(len(code), 0, -1) if code[:end] in table), None)
