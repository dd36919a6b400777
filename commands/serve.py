"""Start a server, or workers alone: find the models, take the address, hand both to the supervisor.

Owns the exit codes and the lines on the terminal. Knows the models only as references and the fronts only as settings.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from batching.control import ControlChannel, listen_at
from batching.errors import StartupFailed
from batching.groups import Plan, Wanted
from batching.supervisor import Supervisor
from commands import exits, logs
from commands.excerpt import Order
from commands.planning import Planner
from commands.rehearsing import Rehearsing
from commands.spool import folder_of, owned_spool, spool_plan
from front.security import Guard, complaints
from front.settings import SECRETS, Settings
from front.sizing import fronts_of
from models.errors import LoadError
from models.repository import at
from models.versions import parse_policy

log = logging.getLogger("inference.supervisor")

ENTRY = Path(__file__).resolve().parent.parent / "inference_server.py"
CHILD = [sys.executable, str(ENTRY), "--child"]


def heed(settings: Settings) -> None:
    """Log as the settings say. Raises ValueError for names, origins or keys that the fronts could not work with."""
    logs.choose(settings.log_format)
    Guard(settings)
    for complaint in complaints(settings):
        log.warning("%s", complaint)


@contextmanager
def planned(settings: Settings) -> Iterator[Plan]:
    """What the supervisor is to run for these settings; its planner ends with the block.

    Raises models.errors.LoadError where there is nothing to serve, ValueError for settings that do not fit it.
    """
    policy = parse_policy(settings.version_policy)
    planner = Planner(
        at(settings.model_path, settings.model_dir, allow_h5=settings.allow_h5),
        policy,
        settle_s=settings.reload_settle_s,
        keep_dir=None if settings.keep_dir is None else Path(settings.keep_dir),
    )
    with closing(_rehearsing(settings, planner)) as chosen:
        yield _plan(settings, planner.first, chosen)


def _rehearsing(settings: Settings, planner: Planner) -> Planner | Rehearsing:
    """The planner, with logged requests for what is new, where they are asked for and there is a log."""
    folder = folder_of(settings)
    if not settings.reload_replay or folder is None:
        return planner
    order = Order("", settings.reload_replay, str(folder), settings.database_url, "")
    return Rehearsing(planner, planner.first, CHILD, order)


def _plan(settings: Settings, first: Wanted, planner: Planner | Rehearsing) -> Plan:
    served = {one["name"] for group in first.groups.values() for one in group}
    names = served | {one["name"] for one in first.refused}
    if settings.default_model not in (None, *names) and settings.model_path is None:
        raise ValueError(f"DEFAULT_MODEL is {settings.default_model}, but there are only: {', '.join(sorted(names))}")
    told = {name: value for name, value in asdict(settings).items() if name not in SECRETS}
    return Plan(
        entry=CHILD,
        loader="models.runtime:load",
        groups=first.groups,
        refused=first.refused,
        routing=first.routing,
        planner=planner,
        rollback_s=settings.rollback_s,
        options=told,
        front_settings=told,
        fronts=fronts_of(settings),
        workers=settings.workers,
        standby=settings.standby,
        worker_memory_mb=settings.worker_memory_mb,
        quarantine_s=settings.quarantine_s,
        drain_timeout_s=settings.drain_timeout_s,
        **spool_plan(settings),
    )


def listen(settings: Settings) -> socket.socket:
    """The bound socket that all fronts share. Raises OSError when the address is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(4096)
    except BaseException:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a listening socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    started = time.monotonic()

    def on_ready(models: list[dict[str, Any]]) -> None:
        names = ", ".join(f"{model['name']} (version {model['version']})" for model in models)
        print(f"ready after {time.monotonic() - started:.1f} s: {names}", flush=True)

    with ExitStack() as held:
        try:
            heed(settings)
            plan = held.enter_context(planned(settings))
            listener = listen(settings)
            chores = held.enter_context(owned_spool(settings))
        except (ValueError, LoadError, OSError) as error:
            return _cannot_start(error, f"on {settings.host} port {settings.port}")
        print(f"listening on {url_of(listener)}", flush=True)
        return _run(Supervisor(plan, listener=listener, on_ready=on_ready, chores=chores))


def serve_workers(settings: Settings) -> int:
    """Run workers alone, for fronts in other processes (`wsgi`) that attach at settings.worker_socket."""
    if settings.worker_socket is None:
        return _fail(exits.USAGE, "worker needs --socket PATH")
    with ExitStack() as held:
        try:
            heed(settings)
            plan = held.enter_context(planned(settings))
            chores = held.enter_context(owned_spool(settings))
            listener = listen_at(settings.worker_socket)
        except (ValueError, LoadError, OSError) as error:
            return _cannot_start(error, f"at {settings.worker_socket}")
        print(f"workers at {settings.worker_socket}", flush=True)
        try:
            return _run(Supervisor(plan, attach_listener=listener, on_ready=_say_ready, chores=chores))
        finally:
            Path(settings.worker_socket).unlink(missing_ok=True)


def serve_embedded(fd: int) -> int:
    """A supervisor that lives as long as the channel `fd`; settings come on stdin, its address leaves on stdout."""
    settings = Settings(**json.load(sys.stdin))
    logging.getLogger().setLevel(logging.WARNING)  # stderr is the embedding program's: it hears of what goes wrong
    owner = ControlChannel(socket.socket(fileno=fd))
    try:
        heed(settings)
        with planned(settings) as plan, owned_spool(settings) as chores:
            listener = listen(settings)
            print(json.dumps({"url": url_of(listener)}), flush=True)
            Supervisor(plan, listener=listener, owner=owner, chores=chores).run()
    except (ValueError, OSError) as error:
        print(json.dumps({"reason": str(error)}), flush=True)
    except (LoadError, StartupFailed) as error:
        print(json.dumps({"reason": error.reason}), flush=True)
    return 0


def _say_ready(_models: list[dict[str, Any]]) -> None:
    print("ready", flush=True)


def _cannot_start(error: ValueError | LoadError | OSError, where: str) -> int:
    """The exit code of a server that found no sense in its settings, no model, or its address taken."""
    if isinstance(error, LoadError):
        return _fail(exits.NO_MODEL, error.reason)
    if isinstance(error, OSError):
        return _fail(exits.NO_ADDRESS, f"cannot listen {where}: {error.strerror or error}")
    return _fail(exits.USAGE, str(error))


def _run(supervisor: Supervisor) -> int:
    try:
        supervisor.run()
    except StartupFailed as error:
        return _fail(exits.NO_MODEL, error.reason)
    return 0


def _fail(code: int, reason: str) -> int:
    print(f"inference_server: {reason}", file=sys.stderr, flush=True)
    return code
