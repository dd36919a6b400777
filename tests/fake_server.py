"""A supervisor with fake models, as a process of its own: `python -m tests.fake_server`, its order as JSON on stdin.

Owns what inference_server.serve would do with real models, and nothing more: everything below it is the real thing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from batching.control import listen_at
from batching.errors import StartupFailed
from batching.groups import Plan
from batching.supervisor import Supervisor
from commands import exits, logs, serve
from commands.spool import owned_spool, spool_plan
from front.settings import SECRETS, Settings
from front.sizing import fronts_of
from tests.fake_planner import FakePlanner


def main() -> int:
    """Serve what the order (tests.harness) says; the exit code."""
    logs.set_up("supervisor")
    order: dict[str, Any] = json.load(sys.stdin)
    if order["terminal"]:
        os.open(order["terminal"], os.O_RDWR)  # whoever leads a session and has no terminal has one now
    settings = Settings(**order["settings"])
    with planned(order, settings) as plan:
        return run(plan, order, settings)


@contextmanager
def planned(order: dict[str, Any], settings: Settings) -> Iterator[Plan]:
    """What to serve: what lies on disk where there is a folder of models, else what the order says."""
    if settings.model_dir is not None:
        with serve.planned(settings) as plan:
            yield replace(plan, loader="tests.fake_folders:load")
        return
    told = {name: value for name, value in asdict(settings).items() if name not in SECRETS}
    folder = order["planned"]
    planner = FakePlanner(folder, order["groups"], order["refused"]) if folder else None
    try:
        yield Plan(
            entry=[sys.executable, str(serve.ENTRY), "--child"],
            loader="tests.fakes:load",
            groups=order["groups"],
            refused=order["refused"],
            planner=planner,
            rollback_s=settings.rollback_s,
            options=told,
            front_settings={**told, **order["front_settings"]},
            fronts=fronts_of(settings),
            workers=settings.workers,
            standby=settings.standby,
            worker_memory_mb=settings.worker_memory_mb,
            quarantine_s=settings.quarantine_s,
            drain_timeout_s=settings.drain_timeout_s,
            **spool_plan(settings),
        )
    finally:
        if planner is not None:
            planner.close()


def run(plan: Plan, order: dict[str, Any], settings: Settings) -> int:
    """Serve until told to end; the exit code."""
    listener = serve.listen(settings) if order["http"] else None
    attach_listener = listen_at(order["socket"]) if order["socket"] else None
    say({"url": serve.url_of(listener) if listener else None})
    try:
        with owned_spool(settings) as chores:
            Supervisor(
                plan, listener=listener, attach_listener=attach_listener, on_ready=say_ready, chores=chores
            ).run()
    except StartupFailed as error:
        print(f"reason: {error.reason}", file=sys.stderr, flush=True)
        return exits.NO_MODEL
    finally:
        if order["socket"]:
            Path(order["socket"]).unlink()
    return 0


def say(message: dict[str, Any]) -> None:
    """One line of JSON for whoever started us."""
    print(json.dumps(message), flush=True)


def say_ready(models: list[dict[str, Any]]) -> None:
    """Which models are served, once it is decided."""
    say({"ready": [model["name"] for model in models]})


if __name__ == "__main__":
    sys.exit(main())
