"""How the end of a process is found, whatever keeps its channel open; real processes with a program of the test's."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batching.child import Child
from batching.counters import Counters
from batching.loop import Loop
from batching.processes import Processes
from batching.slots import Slots
from tests.harness import SOON_S, wait_until

# Says a word, and leaves somebody behind who holds its channel until the pipe it reads from ends.
HOLDER = """
import json, os, subprocess, sys
folder, _role, channel = sys.argv[1:]
subprocess.Popen(["cat", folder + "/pipe"], pass_fds=[int(channel)], stdout=subprocess.DEVNULL)
body = json.dumps({"type": "condition", "text": "last words", "fds": 0}).encode()
os.write(int(channel), len(body).to_bytes(4, "little") + body)
os._exit(3)
"""
# Lets go of its channel and lives on.
DEAF = """
import os, signal, sys
os.close(int(sys.argv[-1]))
signal.pause()
"""


class Ward:
    """A loop of processes; `heard` is what happened, in order."""

    def __init__(self, program: str, *arguments: str) -> None:
        self.heard: list[str] = []
        self.loop = Loop()
        self.counters = Counters.create(4)
        self.slots = Slots(self.counters)
        self.processes = Processes(
            [sys.executable, "-c", program, *arguments],
            self.loop,
            self.counters,
            self.slots,
            on_message=self._on_message,
            on_death=lambda child: self.heard.append("dead"),
            on_end=lambda child, how: self.heard.append(how),
        )

    def _on_message(self, child: Child, message: dict[str, Any]) -> None:
        self.heard.append(json.dumps(message["text"]))

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Turn until it is so; the timer ends a turn in which nothing happens."""

        def turned() -> bool:
            self.loop.after(0.01, lambda: None)
            self.loop.turn()
            return condition()

        wait_until(turned, SOON_S, what)


def test_a_death_is_seen_though_what_the_process_has_started_still_holds_its_channel(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    ward = Ward(HOLDER, str(tmp_path))
    child = ward.processes.start("worker", {})
    with open(tmp_path / "pipe", "wb"):  # until the end of the block
        wait_until(lambda: os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT), SOON_S, "it has ended")
        ward.processes.collect()
        assert ward.heard == ['"last words"', "dead", "exit code 3"]
        assert not ward.processes
    ward.counters.close()


def test_one_that_lets_go_of_its_channel_and_does_not_end_is_ended() -> None:
    ward = Ward(DEAF)
    ward.processes.start("worker", {})

    def is_collected() -> bool:
        ward.processes.collect()  # as the kernel's signal would have it
        return not ward.processes

    ward.until(is_collected, "it is gone")
    assert ward.heard == ["dead", "SIGKILL"]
    ward.counters.close()


def test_who_is_killed_is_dead_at_once_and_collected_when_it_is_gone() -> None:
    ward = Ward("import signal; signal.pause()")
    child = ward.processes.start("worker", {})
    ward.processes.kill(child)
    assert ward.heard[0] == "dead"
    assert not ward.processes.is_alive(child)
    ward.processes.kill(child)  # no news

    def is_collected() -> bool:
        ward.processes.collect()
        return not ward.processes

    ward.until(is_collected, "it is gone")
    assert ward.heard == ["dead", "SIGKILL"]
    ward.counters.close()


def test_its_place_is_free_again_when_it_cannot_be_started(tmp_path: Path) -> None:
    ward = Ward("")
    ward.processes._entry = [str(tmp_path / "missing")]
    for _ in range(100):  # there are 62 places
        try:
            ward.processes.start("worker", {})
        except FileNotFoundError:
            ward.heard.append("not started")
    assert len(ward.heard) == 100
    assert not ward.processes
    ward.counters.close()
