"""Models change on disk, for better and for worse, while sixteen clients of three dialects ask without a pause."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fake_folders import DAMAGED, FILE, HALF_A_GRAPH, Disk
from tests.faults.asking import counted, post
from tests.faults.base import back_to_base, faulty_server
from tests.faults.conftest import Say
from tests.faults.load import Load, assert_promises, statuses, warm_up
from tests.faults.logs import assert_quiet
from tests.faults.reloading import (
    BESIDE,
    LONE,
    MODEL,
    Clients,
    answer,
    longest_gap_s,
    p99_s,
    pids,
    pss,
    reload,
    repository,
    until_answers,
    until_memory_is_back,
    until_told,
    until_well,
    workers,
)  # fmt: skip
from tests.harness import SOON_S, Server, wait_until

DEATHS = "inference_worker_deaths_total"
WORKERS = 2
SETTINGS: dict[str, Any] = {
    "fronts": 2,
    "workers": WORKERS,
    "reload_settle_s": 0.2,
    "rollback_s": 4.0,
    "queue_rows": 1 << 20,  # some of the requests have thousands
    "predict_timeout_ms": 1000.0,  # so long links to old workers linger, and a third generation is not begun before
}
# Sixteen clients that never pause would leave two cores nothing to load models with.
PAUSE_S = 0.06
# Loading takes TensorFlow three seconds of a core, and a busy machine has none to spare.
TF_SOON_S, TF_TIMEOUT_S = 90.0, 4.0
CALM_S = 2.0
EXAMPLE = {"request": {"features": [1.0]}}


class Swaps:
    """One server whose models change, and its clients. Each method is one change, and lasts until all know of it.

    serving_s: how long after the end of each good copy the first client heard of it. spans: when each change began and
    ended (monotonic seconds).
    """

    def __init__(self, server: Server, disk: Disk, clients: Clients) -> None:
        self.server = server
        self.url = server.url
        self.disk = disk
        self.clients = clients
        self.serving_s: list[float] = []
        self.spans: dict[str, tuple[float, float]] = {}

    def run(self) -> None:
        """All of them, in this order."""
        for swap in (
            self.a_copy,
            self.a_renamed_folder,
            self.a_corrupt_one,
            self.half_a_copy,
            self.the_other_half,
            self.one_with_other_inputs,
            self.one_that_fails_its_example,
            self.one_that_is_slow_to_load,
            self.a_link_out_of_the_root,
            self.one_that_kills_its_worker,
            self.files_overwritten_in_place,
            self.files_damaged_in_place,
            self.files_mended_in_place,
            self.a_newer_one,
            self.taken_back,
            self.asked_for_again,
            self.deleted_back_to_an_older_number,
            self.another_model_unloaded,
            self.and_loaded_again,
            self.the_other_group,
            self.deleted_and_then_a_worker_killed,
            self.emptied_and_then_the_workers_killed,
        ):
            begun = time.monotonic()
            swap()
            self.spans[swap.__name__.replace("_", " ")] = begun, time.monotonic()

    # -- good versions -------------------------------------------------------------------------------------------

    def a_copy(self) -> None:
        self._serves(2, 2, lambda: self.disk.put(MODEL, 2, factor=2))

    def a_renamed_folder(self) -> None:
        made = self.disk.make(factor=3)
        self._serves(3, 3, lambda: made.rename(self.disk.version(MODEL, 3)))

    def one_that_is_slow_to_load(self) -> None:
        self._serves(8, 8, lambda: self.disk.put(MODEL, 8, factor=8, load_seconds=1.0))

    def files_overwritten_in_place(self) -> None:
        self._serves(8, 108, lambda: self._overwrite(8, factor=108))

    def files_mended_in_place(self) -> None:
        self._serves(8, 208, lambda: self._overwrite(8, factor=208))
        until_well(self.url)

    def a_newer_one(self) -> None:
        self._serves(11, 11, lambda: self.disk.put(MODEL, 11, factor=11))

    # -- bad ones ------------------------------------------------------------------------------------------------

    def a_corrupt_one(self) -> None:
        self._is_refused(4, "its file is damaged; version 3 serves", damaged=True)

    def half_a_copy(self) -> None:
        self.disk.put(MODEL, 5, graph=HALF_A_GRAPH, factor=5)
        until_told(self.url, 5, "its variables folder is missing (is it still being copied?); version 3 serves")

    def the_other_half(self) -> None:
        variables = self.disk.version(MODEL, 5) / "variables"
        variables.mkdir()
        (variables / "variables.index").write_bytes(b"index")
        until_told(self.url, 5, "files are missing in its variables folder")
        self._serves(5, 5, lambda: (variables / "variables.data-00000-of-00001").write_bytes(b"data"))
        until_well(self.url)

    def one_with_other_inputs(self) -> None:
        self._is_refused(6, '"features" holds 1 numbers, expected 2; version 5 serves', factor=6, size=2)

    def one_that_fails_its_example(self) -> None:
        promise = {"examples": [{**EXAMPLE, "answer": {"prediction": 8.0}}]}
        self._is_refused(7, "prediction is 7.0, not 8.0; version 5 serves", factor=7, contract=promise)

    def a_link_out_of_the_root(self) -> None:
        link = self.disk.version(MODEL, 9)
        link.symlink_to(self.disk.make(factor=9))
        until_told(self.url, 9, "a symbolic link leads outside the folder of models; version 8 serves")
        link.unlink()
        until_well(self.url)

    def one_that_kills_its_worker(self) -> None:
        self._is_refused(10, "its worker died before it was ready", kind="dies")

    def files_damaged_in_place(self) -> None:
        (self.disk.version(MODEL, 8) / FILE).write_text(DAMAGED)
        until_told(self.url, 8, "its file is damaged; its earlier files serve on")
        assert repository(self.url)[MODEL, "8"][0] == "READY"
        until_answers(self.url, ("8", 108.0))

    # -- an operator's word --------------------------------------------------------------------------------------

    def taken_back(self) -> None:
        assert reload(self.url, "rollback").status == 200
        until_answers(self.url, ("8", 208.0))
        until_told(self.url, 11, "an operator took it back; version 8 serves")

    def asked_for_again(self) -> None:
        reply = reload(self.url, "reload")
        assert reply.status == 200, reply
        until_answers(self.url, ("11", 11.0))
        until_well(self.url)

    def another_model_unloaded(self) -> None:
        assert post(self.url, f"/v2/repository/models/{BESIDE}/unload", b"").status == 200
        assert (BESIDE, "1") not in {key for key, (state, _) in repository(self.url).items() if state == "READY"}

    def and_loaded_again(self) -> None:
        assert post(self.url, f"/v2/repository/models/{BESIDE}/load", b"").status == 200
        assert repository(self.url)[BESIDE, "1"][0] == "READY"

    # -- groups, deletions, deaths -------------------------------------------------------------------------------

    def the_other_group(self) -> None:
        lone, ours = self.clients.pids[LONE].copy(), pids(self.url, BESIDE, WORKERS)
        assert len(lone) <= WORKERS, "it was left alone"
        self.disk.put(LONE, 2, kind="pid", contract={"isolate": True})
        wait_until(lambda: self.clients.pids[LONE] - lone, SOON_S, "it has other workers")
        assert pids(self.url, BESIDE, WORKERS) == ours

    def deleted_back_to_an_older_number(self) -> None:
        self.disk.remove(MODEL, 11, 8, 5, 3)
        until_answers(self.url, ("2", 2.0))

    def deleted_and_then_a_worker_killed(self) -> None:
        self._serves(12, 12, lambda: self.disk.put(MODEL, 12, factor=12))
        victim = min(pids(self.url, BESIDE, 1))
        self.disk.remove(MODEL, 12)
        self._kill(victim)
        until_answers(self.url, ("2", 2.0))

    def emptied_and_then_the_workers_killed(self) -> None:
        for path in self.disk.version(MODEL, 2).iterdir():
            path.unlink()
        until_told(self.url, 2, "(is it still being copied?); its earlier files serve on")
        for victim in pids(self.url, BESIDE, WORKERS):
            self._kill(victim)
        until_answers(self.url, ("2", 2.0))
        self.disk.remove(MODEL, 2)
        until_answers(self.url, ("1", 1.0))
        until_well(self.url)

    # -- what they share -----------------------------------------------------------------------------------------

    def _serves(self, version: int, factor: float, change: Callable[[], object]) -> None:
        """The change brings a version that multiplies so."""
        what = self.clients.allow(version, factor)
        change()
        changed = time.monotonic()
        self.serving_s.append(self.clients.until_heard(what) - changed)
        until_answers(self.url, what)

    def _is_refused(self, version: int, words: str, **how: Any) -> None:
        """A copy is, for this reason, and is removed again."""
        before = answer(self.url)
        self.disk.put(MODEL, version, **how)
        until_told(self.url, version, words)
        assert answer(self.url) == before
        assert repository(self.url)[MODEL, str(version)][0] == "UNAVAILABLE"
        self.disk.remove(MODEL, version)
        until_well(self.url)

    def _overwrite(self, version: int, **fake: Any) -> None:
        (self.disk.version(MODEL, version) / FILE).write_text(json.dumps(fake))

    def _kill(self, worker: int) -> None:
        """And wait for the next one: two at a time would leave nobody."""
        deaths = counted(self.url, DEATHS)
        self.server.kill(worker)
        wait_until(lambda: counted(self.url, DEATHS) > deaths, SOON_S, "its death is seen")
        wait_until(lambda: workers(self.url, "default") == WORKERS, SOON_S, "as many workers as before")


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """Three models, one of them in a group of its own. The one that is asked has an example that it must answer."""
    disk = Disk(tmp_path)
    disk.say(MODEL, "contract.json", examples=[EXAMPLE])
    disk.put(MODEL, 1, factor=1)
    disk.put(BESIDE, 1, kind="pid")
    disk.put(LONE, 1, kind="pid", contract={"isolate": True})
    return disk


def test_no_request_notices_that_models_change(figure: Say, disk: Disk) -> None:
    clients = Clients(1.0, lone=True)
    clients.allow(1, 1)
    with faulty_server([], model_dir=str(disk.root), **SETTINGS) as server:
        warm_up(server.url, clients.ask)
        with back_to_base(server):
            before, began = pss(server), time.monotonic()
            with Load(server.url, make=clients.ask, pause_s=PAUSE_S) as load:
                wait_until(lambda: time.monotonic() > began + CALM_S, SOON_S, "some time without changes")
                changing = time.monotonic()
                swaps = Swaps(server, disk, clients)
                swaps.run()
                changed = time.monotonic()
                asked = load.finish()
        after = until_memory_is_back(server, before)
        log = server.log
        kept = {path.name.rpartition("-")[0] for path in disk.root.glob(".kept-*/*-*")}
    gaps = {name: longest_gap_s(asked, *span) for name, span in swaps.spans.items()}
    longest = max(gaps, key=lambda name: gaps[name])
    figure(
        43,
        "0 failed, none mixed",
        f"{len(swaps.spans)} changes in {changed - changing:.0f} s, {len(asked)} requests: {dict(statuses(asked))}, "
        f"answered by {len(clients.heard)} versions; p99 {p99_s(asked, changing, changed) * 1e3:.0f} ms "
        f"(without changes {p99_s(asked, began, changing) * 1e3:.0f}); "
        f"longest time without an answer {gaps[longest] * 1e3:.0f} ms ({longest})",
    )
    figure(
        43,
        "a good copy serves soon",
        f"first answer after {min(swaps.serving_s):.2f} to {max(swaps.serving_s):.2f} s, of that "
        f"{SETTINGS['reload_settle_s']} s to settle",
    )
    figure(43, "memory back to base", f"PSS of all processes {before >> 20} -> {after >> 20} MiB")
    assert_promises(asked, faults=())
    assert statuses(asked).keys() == {"200"}
    assert kept == {"a-1", "beside-1", "lone-2"} | {"a-2", "lone-1"}, "what serves, and what did before"
    assert not list(disk.root.glob(".kept-*"))
    assert "Traceback" not in log
    assert_quiet(log, changed - began)


def multiplies(folder: Path, factor: float) -> Path:
    """A SavedModel, as TensorFlow writes it."""
    import tensorflow as tf

    module = tf.Module()
    module.factor = tf.Variable(factor, dtype=tf.float32)
    call = tf.function(
        lambda x: {"y": x * module.factor}, input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")]
    )
    tf.saved_model.save(module, str(folder), {"serving_default": call.get_concrete_function()})
    return folder


def test_no_request_notices_that_saved_models_of_tensorflow_change(figure: Say, tmp_path: Path) -> None:
    clients = Clients(TF_TIMEOUT_S)
    made = {number: multiplies(tmp_path / f"made{number}", number) for number in (1, 2, 3)}
    one, two = clients.allow(1, 1), clients.allow(2, 2)
    root = tmp_path / "root"
    shutil.copytree(made[1], root / MODEL / "1")
    settings = {**SETTINGS, "workers": 1, "standby": 1, "predict_timeout_ms": TF_TIMEOUT_S * 1000, "rollback_s": 8.0}
    with faulty_server([], model_dir=str(root), **settings) as server:
        until_one_stands_by(server)
        warm_up(server.url, clients.ask)
        with back_to_base(server):
            before, began = pss(server), time.monotonic()
            with Load(server.url, make=clients.ask, pause_s=PAUSE_S) as load:
                wait_until(lambda: time.monotonic() > began + CALM_S, SOON_S, "some time without changes")
                changing = time.monotonic()
                shutil.copytree(made[2], root / MODEL / "2")
                copied = time.monotonic()
                serving_s = clients.until_heard(two, TF_SOON_S) - copied
                until_answers(server.url, two)
                switched = time.monotonic()
                assert reload(server.url, "rollback").status == 200
                until_answers(server.url, one)
                assert reload(server.url, "reload").status == 200
                until_answers(server.url, two)
                half = (made[3] / "saved_model.pb").read_bytes()
                (made[3] / "saved_model.pb").write_bytes(half[: len(half) // 2])
                shutil.copytree(made[3], root / MODEL / "3")
                reason = until_told(server.url, 3, "; version 2 serves", timeout_s=TF_SOON_S)
                shutil.rmtree(root / MODEL / "3")
                until_one_stands_by(server)
                serving, _ = server.children("worker")
                shutil.rmtree(root / MODEL / "2")
                server.kill(serving)
                until_answers(server.url, one)
                changed = time.monotonic()
                asked = load.finish()
            until_one_stands_by(server)
        after = until_memory_is_back(server, before)
    figure(
        43,
        "TensorFlow: 0 failed, none mixed",
        f"good, rollback, corrupt, deleted and killed in {changed - changing:.0f} s, {len(asked)} requests: "
        f"{dict(statuses(asked))}; p99 {p99_s(asked, changing, changed) * 1e3:.0f} ms "
        f"(without changes {p99_s(asked, began, changing) * 1e3:.0f}); first answer {serving_s:.2f} s after the copy, "
        f"longest time without an answer until then {longest_gap_s(asked, changing, switched) * 1e3:.0f} ms; "
        f"PSS {before >> 20} -> {after >> 20} MiB; refused: {reason}",
    )
    assert_promises(asked, faults=())
    assert statuses(asked).keys() == {"200"}
    assert not list(root.glob(".kept-*"))


def until_one_stands_by(server: Server) -> None:
    """Wait until a worker of what serves now does."""
    wait_until(lambda: " and stands by" in server.log.rpartition(" serves after ")[2], TF_SOON_S, "a worker stands by")
