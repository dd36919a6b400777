"""What may happen to a prediction log while it is written: each a context that lasts as long as the fault does.

Owns how a fault is injected and undone for real. Knows nothing of what must hold meanwhile.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.harness import SOON_S, Server, wait_until
from tests.postgres import Postgres

TABLESPACE = "small_disk"
DISK_BYTES = 64 << 20
DISK_FULL = "53100"
LOCK_NOT_AVAILABLE = "55P03"
# Where nobody may mount, PostgreSQL refuses with the same code at the same place; its disk stays as it is.
REFUSE = f"""
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'as if the disk were full' USING ERRCODE = '{DISK_FULL}'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON inference_logs FOR EACH STATEMENT EXECUTE FUNCTION refuse();
"""


@dataclass(frozen=True)
class Fault:
    """seconds: it lasts at least so long. sqlstate: until the shipper has met this; None where it need meet nothing."""

    name: str
    inject: Callable[[], AbstractContextManager[None]]
    seconds: float = 0.0
    sqlstate: str | None = None


@contextmanager
def killed(postgres: Postgres) -> Iterator[None]:
    """`kill -9` of all of PostgreSQL, and a start."""
    postgres.kill()
    yield
    postgres.start()


@contextmanager
def restarted(postgres: Postgres, mode: str) -> Iterator[None]:
    """A stop ("fast" or "immediate") and a start."""
    postgres.restart(mode)
    yield


@contextmanager
def frozen(postgres: Postgres) -> Iterator[None]:
    """SIGSTOP for all of PostgreSQL."""
    postgres.freeze()
    try:
        yield
    finally:
        postgres.thaw()


@contextmanager
def locked(postgres: Postgres) -> Iterator[None]:
    """Somebody holds the table, and lets nobody read or write it."""
    with postgres.session() as session:
        session.run("BEGIN")
        session.run("LOCK TABLE inference_logs IN ACCESS EXCLUSIVE MODE")
        yield
        session.run("ROLLBACK")


@contextmanager
def killed_child(server: Server, role: str) -> Iterator[None]:
    """`kill -9` of a process of a role, the one with most connections; ends when there are as many as before again."""
    before = server.children(role)
    victim = max(before, key=_connections)
    server.kill(victim)
    yield
    wait_until(lambda: len(set(server.children(role)) - {victim}) == len(before), SOON_S, f"another {role}")


@contextmanager
def killed_shipper_with_a_batch(server: Server, postgres: Postgres) -> Iterator[None]:
    """As `killed_child`, at the end of a lock: the shipper holds rows that it could not bring to the table."""
    with locked(postgres):
        yield
        with killed_child(server, "shipper"):
            pass


def _connections(pid: int) -> int:
    return sum(one.status == psutil.CONN_ESTABLISHED for one in psutil.Process(pid).net_connections("tcp"))


class Disk:
    """Where the table lies: a disk of its own where we may mount one."""

    def __init__(self, postgres: Postgres, folder: Path | None) -> None:
        self._postgres = postgres
        self._folder = folder

    @property
    def kind(self) -> str:
        """In words, for whoever reads what was tested."""
        return "a disk of its own" if self._folder else "no disk of its own: the refusal comes from a trigger"

    @contextmanager
    def full(self) -> Iterator[None]:
        """No byte is left."""
        if self._folder is None:
            self._postgres.execute(REFUSE)
            yield
            self._postgres.execute("DROP FUNCTION refuse CASCADE")
            return
        ballast = self._folder / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:  # the last write is a partial one
                file.write(bytes(4096))
        yield
        ballast.unlink()


@contextmanager
def disk_of_its_own(postgres: Postgres) -> Iterator[Disk]:
    """Move the table, which must be there, to a disk that can be filled; unmounted at the end, after PostgreSQL's."""
    folder = postgres.folder / "disk"
    folder.mkdir()
    if not _mount(folder):
        yield Disk(postgres, None)
        return
    try:
        place = folder / "tablespace"
        place.mkdir(0o700)
        owner = (postgres.folder / "data").stat()
        os.chown(place, owner.st_uid, owner.st_gid)
        postgres.execute(f"CREATE TABLESPACE {TABLESPACE} LOCATION '{place}'")
        postgres.execute(f"ALTER TABLE inference_logs SET TABLESPACE {TABLESPACE}")
        yield Disk(postgres, folder)
    finally:
        postgres.end()  # it has files open there
        subprocess.run(["umount", folder], check=True)


def _mount(folder: Path) -> bool:
    """Whether a small disk is there now."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=755", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
