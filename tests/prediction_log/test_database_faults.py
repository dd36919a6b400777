"""A real PostgreSQL goes down in every way it can: what the store says, how soon, and that it heals by itself."""

from __future__ import annotations

import gc
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from prediction_log.database import Store
from prediction_log.sqlstate import StoreError
from tests.harness import wait_until
from tests.postgres import Postgres
from tests.prediction_log.samples import failure, predictions

# A try that the store's own limits end, on a busy machine.
TRY_S = 2.5


def tries_until_inserted(store: Store, number: int) -> int:
    """How many tries failed before the row was in, all of them worth another one. At most 5 s."""
    failed = 0
    give_up = time.monotonic() + 5
    while True:
        try:
            assert store.insert("predictions", predictions(number)) == 1
            return failed
        except StoreError as error:
            if error.kind != "retry" or time.monotonic() > give_up:
                raise
            failed += 1


def logged(postgres: Postgres) -> list[float]:
    """What is in the table, by somebody else's connection."""
    return [value / 2 for (value,) in postgres.execute("SELECT prediction FROM inference_logs ORDER BY prediction")]


def test_a_server_that_is_down_is_found_down_at_once(postgres: Postgres, store: Store) -> None:
    store.insert("predictions", predictions(1))
    postgres.stop()
    for _ in range(3):
        told = failure(store.insert, "predictions", predictions(2))
        assert told.error.kind == "retry"
        assert told.seconds < 0.5
    postgres.start()
    assert tries_until_inserted(store, 2) == 0
    assert logged(postgres) == [1, 2]


def test_a_server_that_comes_later_is_prepared_then(postgres: Postgres) -> None:
    postgres.stop()
    late = Store(postgres.url())
    assert failure(late.prepare).error.kind == "retry"
    postgres.start()
    late.prepare()
    assert tries_until_inserted(late, 1) == 0
    late.close()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_costs_one_try(postgres: Postgres, store: Store, mode: str) -> None:
    for number in range(5):
        assert tries_until_inserted(store, number) <= 1
        postgres.restart(mode)
    assert logged(postgres) == [0, 1, 2, 3, 4]


def test_what_was_acknowledged_survives_kill_9(postgres: Postgres, store: Store) -> None:
    for number in range(3):
        assert tries_until_inserted(store, number) <= 1
        postgres.kill()
        assert failure(store.insert, "predictions", predictions(10)).error.kind == "retry"
        postgres.start()
    assert logged(postgres) == [0, 1, 2]


def test_a_backend_that_is_killed_takes_the_try_with_it(postgres: Postgres, store: Store) -> None:
    """PostgreSQL then ends all sessions and recovers; what it says meanwhile, SQLAlchemy takes for a wrong query."""
    store.insert("predictions", predictions(1))
    ((pid,),) = postgres.execute("SELECT pid FROM pg_stat_activity WHERE usename = 'app'")
    os.kill(pid, 9)
    tries_until_inserted(store, 2)
    assert logged(postgres) == [1, 2]


def test_a_try_on_a_frozen_server_ends(postgres: Postgres, store: Store) -> None:
    store.insert("predictions", predictions(1))
    postgres.freeze()
    for _ in range(2):  # on the pool's connection, and on one that the kernel accepts for the server
        told = failure(store.insert, "predictions", predictions(2))
        assert told.said == ("retry", "")
        assert told.seconds < TRY_S
    postgres.thaw()
    assert tries_until_inserted(store, 2) == 0
    assert logged(postgres) == [1, 2]


def test_a_try_that_is_frozen_half_way_ends(postgres: Postgres, store: Store) -> None:
    """The kernel's buffers are full then, and the driver's good-bye would wait for them a second time."""

    def freeze_under_way(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT 1")
        postgres.freeze()
        connection.exec_driver_sql(f"SELECT '{'x' * 20_000_000}'")

    told = failure(store._run, freeze_under_way)
    assert told.said == ("retry", "")
    assert told.seconds < TRY_S
    postgres.thaw()
    assert tries_until_inserted(store, 1) == 0


def test_lost_connections_leave_no_descriptor_open(postgres: Postgres, store: Store) -> None:
    store.insert("predictions", predictions(0))
    before = len(os.listdir("/proc/self/fd"))
    for number in range(1, 6):
        postgres.restart("immediate")
        tries_until_inserted(store, number)
    postgres.stop()
    failure(store.insert, "predictions", predictions(9))
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_locked_table_is_given_up_soon(postgres: Postgres, store: Store) -> None:
    store.insert("predictions", predictions(1))
    with postgres.session() as session:
        session.run("BEGIN")
        session.run("LOCK TABLE inference_logs IN ACCESS EXCLUSIVE MODE")
        told = failure(store.insert, "predictions", predictions(2))
        assert told.said == ("retry", "55P03")
        assert told.seconds < 1
        session.run("ROLLBACK")
    assert tries_until_inserted(store, 2) == 0


def test_a_statement_that_takes_too_long_is_cancelled(postgres: Postgres, store: Store) -> None:
    postgres.execute("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); END'")
    postgres.execute("CREATE TRIGGER slow BEFORE INSERT ON inference_logs FOR EACH ROW EXECUTE FUNCTION slow()")
    told = failure(store.insert, "predictions", predictions(1))
    assert told.said == ("retry", "57014")
    assert told.seconds < TRY_S
    postgres.execute("DROP TRIGGER slow ON inference_logs")
    assert tries_until_inserted(store, 1) == 0


def test_too_many_connections_are_worth_another_try(postgres: Postgres, store: Store) -> None:
    postgres.execute("ALTER ROLE app CONNECTION LIMIT 0")
    postgres.disconnect()
    failure(store.insert, "predictions", predictions(1))  # of the lost connection
    assert failure(store.insert, "predictions", predictions(1)).said == ("retry", "53300")
    postgres.execute("ALTER ROLE app CONNECTION LIMIT -1")
    assert tries_until_inserted(store, 1) == 0


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 12 MB. It takes root to mount one: else by sudo, as on GitHub's machines."""
    disk = folder / "disk"
    disk.mkdir()
    owner = folder.stat()
    options = f"size=12m,mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*sudo, "mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run([*sudo, "umount", "--lazy", disk], check=True)


def test_a_full_disk_is_waited_for(postgres: Postgres, store: Store) -> None:
    with small_disk(postgres.folder) as disk:
        postgres.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
        postgres.execute("ALTER TABLE inference_logs SET TABLESPACE small")
        filler = disk / "filler"
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        filler.write_bytes(bytes(free))
        first = failure(store.insert, "predictions", predictions(*range(1000)))
        again = failure(store.insert, "predictions", predictions(*range(1000)))
        assert (first.said, again.said) == (("retry", "53100"), ("retry", "53100"))
        filler.unlink()
        assert store.insert("predictions", predictions(*range(1000))) == 1000
        postgres.stop("immediate")  # its checkpoint would look for the disk


CONFIGURATIONS: dict[str, tuple[str, str, str]] = {
    "a column that is gone": (
        "ALTER TABLE inference_logs RENAME batch_id TO away",
        "ALTER TABLE inference_logs RENAME away TO batch_id",
        "42703",
    ),
    "an index that is gone": (
        "DROP INDEX inference_logs_record_id_row_number_idx",
        "CREATE UNIQUE INDEX ON inference_logs (record_id, row_number)",
        "42P10",
    ),
    "a permission that is gone": (
        "REVOKE INSERT ON inference_logs FROM app",
        "GRANT INSERT ON inference_logs TO app",
        "42501",
    ),
}


def test_a_table_that_was_put_away_is_made_anew(postgres: Postgres, store: Store) -> None:
    store.insert("predictions", predictions(1))
    postgres.execute("ALTER TABLE inference_logs RENAME TO last_year")
    assert failure(store.insert, "predictions", predictions(2)).said == ("configuration", "42P01")
    store.prepare()
    assert store.insert("predictions", predictions(2, 2)) == 1
    assert postgres.execute("SELECT count(*) FROM last_year") == [[1]]


@pytest.mark.parametrize(("fault", "cure", "sqlstate"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_table_that_is_not_right_waits_for_somebody(
    postgres: Postgres, store: Store, fault: str, cure: str, sqlstate: str
) -> None:
    postgres.execute(fault)
    for call in (lambda: store.insert("predictions", predictions(1)), store.prepare):
        assert failure(call).said == ("configuration", sqlstate)
    postgres.execute(cure)
    store.prepare()
    assert tries_until_inserted(store, 1) == 0


def test_a_changed_password_waits_for_somebody(postgres: Postgres, store: Store) -> None:
    old = postgres.password
    postgres.set_password("another")
    failure(store.insert, "predictions", predictions(1))  # of the lost connection
    assert failure(store.insert, "predictions", predictions(1)).said == ("configuration", "28P01")
    postgres.set_password(old)
    assert tries_until_inserted(store, 1) == 0


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?sslmode=disable", None),
        ("?sslmode=prefer", None),
        ("?sslmode=require", ("configuration", "")),
        ("?sslmode=verify-full", ("configuration", "")),
    ],
)
def test_a_server_without_tls_is_refused_where_tls_is_required(
    postgres: Postgres, query: str, said: tuple[str, str] | None
) -> None:
    store = Store(postgres.url(query=query))
    if said is None:
        store.prepare()
    else:
        assert failure(store.prepare).said == said
    store.close()


def test_a_database_that_does_not_exist_waits_for_somebody(postgres: Postgres) -> None:
    store = Store(postgres.url().replace("/inference", "/elsewhere"))
    assert failure(store.prepare).said == ("configuration", "3D000")
    store.close()


def test_a_host_that_nobody_knows_is_worth_another_try() -> None:
    store = Store("postgresql://me:hunter2@nobody.invalid/log?sslmode=disable")
    told = failure(store.prepare)
    assert told.error.kind == "retry"
    assert "invalid" not in str(told.error)
    store.close()


@pytest.mark.parametrize("fault", [Postgres.stop, Postgres.freeze, Postgres.kill])
def test_a_server_ends_with_its_test_whatever_was_done_to_it(
    postgres: Postgres, fault: Callable[[Postgres], None]
) -> None:
    pid = postgres.pid
    fault(postgres)
    postgres.end()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 5, "the postmaster is gone")


def test_a_server_that_dies_at_the_first_words_leaves_no_socket_behind() -> None:
    """As a restart may do. An unclosed socket is a warning, and so a failure, once it is collected."""
    welcome = b"R" + struct.pack(">ii", 8, 0) + b"Z" + struct.pack(">ic", 5, b"I")

    def serve(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(4096)
            sock.sendall(welcome)
            sock.recv(4096)  # the first query

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve, args=(listener,))
        serving.start()
        store = Store(f"postgresql://u@127.0.0.1:{listener.getsockname()[1]}/d?sslmode=disable")
        with pytest.raises(StoreError) as failed:
            store.is_prepared()
        assert failed.value.kind == "retry"
        serving.join()
        store.close()
    gc.collect()
