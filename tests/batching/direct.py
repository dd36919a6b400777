"""A real worker process without a supervisor: the test says hello, makes the links and speaks the frames itself."""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from batching import arrays
from batching.connection import Connection
from batching.control import ControlChannel
from batching.counters import Counters
from batching.errors import ConnectionLost, Failure
from batching.loader import SIGNATURES_MAX
from batching.transport import WHOLE_BYTES, Frame, Kind, answered_of, ids_of, pack, pack_item
from batching.vitals import Seen
from inference_server import Settings
from tests.harness import ROOT, SOON_S, TUNING, wait_until

# What warm-up says a call costs decides where batches run.
QUICK: dict[str, Any] = {"cost": 1e-5}
SLOW: dict[str, Any] = {"cost": 0.01}
both_ways = pytest.mark.parametrize("cost", [QUICK, SLOW], ids=["in the loop", "in the thread"])


def each_answer(frame: Frame) -> Iterator[Frame]:
    """The answers that came together, as if each had come by itself."""
    answered, payload = answered_of(frame)
    outputs = arrays.decode(arrays.layout_of(frame.layout), payload, frame.rows)
    start = 0
    for id, rows, queue_us in answered:
        _, own = arrays.encode([output[start : start + rows] for output in outputs])
        yield frame._replace(kind=Kind.ANSWER, id=id, rows=rows, queue_us=queue_us, payload=own)
        start += rows


class Peer:
    """A front's end of a link. Ids are the test's; answers are kept by id."""

    def __init__(self, sock: socket.socket) -> None:
        self.connection = Connection(sock)
        self.answers: dict[int, Frame] = {}
        self.started: list[tuple[int, ...]] = []  # what we were told of batches before they ran

    def send(
        self, id: int, *tensors: np.ndarray, model: int = 0, timeout_s: float = SOON_S, age_s: float = 0.0
    ) -> None:
        """One item, written at once; its rows are the tensors' first dimension."""
        self.enqueue(id, *tensors, model=model, timeout_s=timeout_s, age_s=age_s)
        self.flush()

    def enqueue(
        self,
        id: int,
        *tensors: np.ndarray,
        model: int = 0,
        timeout_s: float = SOON_S,
        age_s: float = 0.0,
        code: int = 0,
    ) -> None:
        """One item, to be written by `flush`."""
        layout, payload = arrays.encode(tensors)
        now = time.monotonic()
        whole = len(payload) <= WHOLE_BYTES
        frame = pack_item(
            id,
            code,
            model * SIGNATURES_MAX,
            len(tensors[0]),
            now - age_s,
            now + timeout_s,
            layout,
            payload if whole else b"",
        )
        if whole:
            self.connection.send(frame)
        else:
            self.connection.send_large(id, frame, payload)

    def cancel(self, id: int) -> None:
        """Withdraw an item."""
        self.connection.send(pack(Kind.CANCEL, id))
        self.flush()

    def flush(self) -> None:
        """Write all there is, reading meanwhile, as the worker may have answers in the way."""
        while self.connection.wants_write:
            self.connection.flush()
            if self.connection.wants_write:
                self._wait(selectors.EVENT_READ | selectors.EVENT_WRITE, SOON_S)
                self.read()

    def read(self) -> None:
        """Take in what has arrived. Raises ConnectionLost when the worker has gone."""
        for frame in self.connection.receive():
            if frame.kind == Kind.STARTED:
                self.started.append(ids_of(frame))
            elif frame.kind == Kind.ANSWERS:
                self.answers.update((answer.id, answer) for answer in each_answer(frame))
            else:
                self.answers[frame.id] = frame

    def told(self) -> list[tuple[int, ...]]:
        """What has been said until now of batches before they ran."""
        self.read()
        return self.started

    def answer(self, id: int) -> Frame:
        """The answer to an item; an AssertionError when there is none in time."""
        give_up = time.monotonic() + SOON_S
        while id not in self.answers:
            self._wait(selectors.EVENT_READ, give_up - time.monotonic())
            self.read()
        return self.answers[id]

    def values(self, id: int) -> list[float]:
        """The only output of an item that was answered, flat."""
        frame = self.answer(id)
        assert frame.kind == Kind.ANSWER
        (output,) = arrays.decode(arrays.layout_of(frame.layout), frame.payload, frame.rows)
        return [float(value) for value in output.ravel()]

    def _wait(self, events: int, timeout_s: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, events)
            assert selector.select(max(timeout_s, 0)), "the worker neither answers nor reads"


class DirectWorker:
    """The process and its control channel. `report` is what it said when it had loaded."""

    def __init__(self, models: Sequence[dict[str, Any]], stack: ExitStack, **settings: Any) -> None:
        self._stack = stack
        ours, theirs = socket.socketpair()
        life, its_life = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "inference_server.py"), "--child", "worker", str(theirs.fileno())],
            cwd=ROOT,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(self.process.wait, SOON_S)
        stack.callback(self.process.kill)
        theirs.close()
        self.life = stack.enter_context(life)
        self.control = ControlChannel(ours)
        stack.callback(self.control.close)
        self.counters = Counters.create(3)
        stack.callback(self.counters.close)
        hello = {
            "type": "hello",
            "slot": 2,
            "loader": "tests.fakes:load",
            "models": [{"version": "1", **model} for model in models],
            "options": asdict(Settings(**{**TUNING, **settings})),
        }
        self.control.send(hello, [its_life.fileno(), self.counters.fd], owned=[its_life])
        self.report, _ = self.control.wait(SOON_S)

    def link(self) -> Peer:
        """A new connection, as the supervisor would make one for a front."""
        ours, theirs = socket.socketpair()
        self.control.send({"type": "link"}, [theirs.fileno()], owned=[theirs])
        peer = Peer(ours)
        self._stack.callback(peer.connection.close)
        return peer

    def stop(self) -> None:
        """Say that it shall end when nothing is left to answer."""
        self.control.send({"type": "stop"})

    def vitals(self) -> Seen:
        """The worker's signs of life."""
        return self.counters.vitals(2)

    def counted(self, name: str, *labels: str) -> float:
        """A counter of the worker's as it stands now."""
        return self.counters.read().get((name, labels), [0.0])[0]


@contextmanager
def worker(*models: dict[str, Any], **settings: Any) -> Iterator[DirectWorker]:
    """A worker that holds these fake models and has reported; killed at the end if it still runs."""
    with ExitStack() as stack:
        yield DirectWorker(models, stack, **settings)


def column(*values: float) -> np.ndarray:
    """Rows of one float32 each."""
    return np.array(values, np.float32).reshape(-1, 1)


def failure(frame: Frame) -> Failure:
    """Why an item failed; an AssertionError when it was answered."""
    assert frame.kind == Kind.FAILED
    return Failure(frame.code)


def ended(peer: Peer) -> bool:
    """Whether the worker has closed the link, after all its answers were read."""

    def is_lost() -> bool:
        try:
            peer.read()
        except ConnectionLost:
            return True
        return False

    return wait_until(is_lost, SOON_S, "the link's end")
