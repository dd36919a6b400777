"""SIGHUP to the whole server: a service reads its folder and its keys again, at a terminal it drains."""

from __future__ import annotations

import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fake_folders import Disk
from tests.faults.asking import predict
from tests.faults.base import faulty_server
from tests.faults.reloading import MODEL
from tests.harness import SOON_S, Server, gate, wait_until

FIRST, SECOND = "the-first-of-two-keys-and-long-enough", "the-second-of-two-keys-and-long-enough"


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    disk = Disk(tmp_path)
    disk.put(MODEL, 1, factor=1)
    return disk


def answers(server: Server, key: str) -> Counter[str]:
    """What several requests with this key are answered with: the version, or the error."""
    replies = [predict(server.url, 1.0, MODEL, Authorization=f"Bearer {key}").json for _ in range(8)]
    return Counter(reply.get("model_version") or reply["error"] for reply in replies)


def test_a_service_reads_its_folder_and_its_keys_again(disk: Disk, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{FIRST}\n")
    settings: dict[str, Any] = {
        "model_dir": str(disk.root),
        "reload_settle_s": 0.0,
        "api_key_file": str(keys),
        "fronts": 2,
    }
    with faulty_server([], **settings) as server:
        assert os.getsid(server.pid) == server.pid, "it has no terminal"
        children = server.children("front")
        assert answers(server, FIRST) == {"1": 8}
        assert answers(server, SECOND) == {"UNAUTHORIZED": 8}
        disk.put(MODEL, 2, factor=2)
        keys.write_text(f"{SECOND}\n")
        server.signal(signal.SIGHUP)
        wait_until(lambda: answers(server, SECOND) == {"2": 8}, SOON_S, "both are known")
        assert answers(server, FIRST) == {"UNAUTHORIZED": 8}
        assert server.children("front") == children


def test_at_a_terminal_that_hangs_up_it_answers_what_it_has_and_ends(disk: Disk) -> None:
    master, terminal = os.openpty()
    with gate() as held, ThreadPoolExecutor() as pool:
        disk.put(MODEL, 2, kind="gate", gate=held.path, cost=0.01)
        settings: dict[str, Any] = {
            "model_dir": str(disk.root),
            "predict_timeout_ms": 60_000.0,
            "terminal": os.ttyname(terminal),
        }
        with faulty_server([], **settings) as server:
            os.close(terminal)
            waiting = pool.submit(predict, server.url, 1.0, MODEL)
            call = held.next_call()
            os.close(master)
            wait_until(lambda: "draining: finishing what is in flight" in server.log, SOON_S, "it drains")
            call.let_go()
            assert waiting.result(SOON_S).json["prediction"] == 2.0
            assert server.wait() == 0
