"""The log: one line for one event whatever it holds, few of each kind, and nothing in it that is nobody's business."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.logs import KINDS_MAX, LINE_BYTES_MAX, Event, Limit, LineHandler, Printed
from tests.fakes import POISON
from tests.faults.asking import get, post
from tests.harness import ROOT, SOON_S, fake_http_server, wait_until

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NAUGHTY = [
    "two\nlines", "carriage\rreturn", "\x1b[31mred\x1b[0m", "bell\x07 null\0", "\x9b31m", "line\u2028separator",
    "right\u202eleft", "\ud800", "\U000e0001", '"quoted" \\back', "\ufeff", "%s %d %n", "\x85next",
]  # fmt: skip


class Clock:
    """Seconds that pass when the test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def logger(
    *, is_json: bool = True, clock: Callable[[], float] = time.monotonic
) -> Iterator[tuple[logging.Logger, Lines]]:
    """A logger of its own, and what it has written."""
    read, write = os.pipe()
    handler = LineHandler("front", is_json=is_json, fd=write, clock=clock)
    made = logging.Logger("inference.test")  # noqa: LOG001 - without whatever pytest puts around the others
    made.addHandler(handler)
    try:
        yield made, Lines(read, handler)
    finally:
        handler.close()
        os.close(read)
        os.close(write)


class Lines:
    """The reading end of a log."""

    def __init__(self, fd: int, handler: LineHandler) -> None:
        self._fd = fd
        self.handler = handler
        os.set_blocking(fd, False)

    def raw(self) -> bytes:
        """All that has been written and not yet read."""
        found = b""
        while True:
            try:
                found += os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return found

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.raw().splitlines()]


def is_one_line(line: bytes) -> bool:
    """One line that no terminal would take for anything but text."""
    text = line.decode()
    return text.endswith("\n") and text[:-1].isprintable() and len(line) <= LINE_BYTES_MAX


# -- one line ----------------------------------------------------------------------------------------------------------


def test_a_line_of_json_says_when_what_and_by_whom() -> None:
    with logger() as (log, lines):
        log.warning("request %s took %d ms", "abc-1", 7)
        (line,) = lines.all()
    assert MOMENT.fullmatch(line.pop("time"))
    assert line == {
        "level": "warning", "role": "front", "pid": os.getpid(), "logger": "inference.test",
        "message": "request abc-1 took 7 ms", "request_id": "abc-1",
    }  # fmt: skip


def test_a_line_of_text_says_the_same() -> None:
    with logger(is_json=False) as (log, lines):
        log.error("it broke: %s", "badly")
        line = lines.raw().decode()
    assert re.fullmatch(rf"{MOMENT.pattern} ERROR front\[{os.getpid()}\] inference.test: it broke: badly\n", line)


@pytest.mark.parametrize("is_json", [True, False], ids=["json", "text"])
@pytest.mark.parametrize("text", NAUGHTY, ids=ascii)
def test_whatever_a_message_holds_it_is_one_line(text: str, is_json: bool) -> None:
    with logger(is_json=is_json) as (log, lines):
        log.info("before %s after", text)
        log.info(text)
        found = lines.raw().splitlines(keepends=True)
    assert len(found) == 2
    assert all(map(is_one_line, found))
    if is_json:
        assert [json.loads(line)["message"] for line in found] == [f"before {text} after", text]


@given(
    st.text(st.characters(), max_size=3000),
    st.text(st.characters(), max_size=9000),
    st.text(max_size=300),
    st.booleans(),
)
def test_a_line_is_short_whatever_it_is_made_of(message: str, exception: str, name: str, is_json: bool) -> None:
    line = Event(0.0, "ERROR", name, message, name, exception).line("worker", is_json=is_json)
    assert is_one_line(line)
    if is_json:
        json.loads(line)


@pytest.mark.parametrize("is_json", [True, False], ids=["json", "text"])
def test_a_long_message_keeps_its_ends(is_json: bool) -> None:
    for unit in ("x", "\u00e4", "\U0001f600", "\0"):
        line = Event(0.0, "INFO", "a", "begin" + unit * 100_000 + "end").line("front", is_json=is_json)
        assert is_one_line(line)
        assert len(line) > 2000
        assert b"begin" in line
        assert b"end" in line


@pytest.mark.parametrize("is_json", [True, False], ids=["json", "text"])
def test_a_traceback_is_a_part_of_its_line(is_json: bool) -> None:
    with logger(is_json=is_json) as (log, lines):
        try:
            raise ValueError("first\nsecond")
        except ValueError:
            log.exception("request %s failed", "id-1")
        (line,) = lines.raw().splitlines(keepends=True)
    assert is_one_line(line)
    if is_json:
        told = json.loads(line)
        assert (told["message"], told["request_id"]) == ("request id-1 failed", "id-1")
        assert told["exception"].startswith("Traceback")
        assert told["exception"].endswith("ValueError: first\nsecond")
    else:
        assert b"Traceback (most recent call last): |   File" in line


def test_arguments_that_do_not_fit_lose_the_arguments_and_not_the_line() -> None:
    with logger() as (log, lines):
        log.info("%d of %d", *["x"])
        assert lines.all()[0]["message"] == "%d of %d (its arguments do not fit)"


# -- few of each kind --------------------------------------------------------------------------------------------------


def test_of_one_kind_ten_lines_leave_in_any_second() -> None:
    clock = Clock()
    with logger(clock=clock) as (log, lines):
        written = []
        for step in range(400):  # 100 a second
            clock.now = 100 + step / 100
            log.info("number %d", step)
            written += [clock.now] * len(lines.all())
    assert len(written) == 40
    assert all(later - earlier >= 1.0 for earlier, later in zip(written, written[10:], strict=False))


def test_what_was_left_out_is_counted_and_said_once() -> None:
    with logger(clock=Clock()) as (log, lines):
        for number in range(1000):
            log.warning("number %d", number)
        log.warning("another kind")
        said = wait_until(lambda: [one for one in lines.all() if "more like it" in one["message"]], SOON_S, "the count")
        assert [one["message"] for one in said] == ["990 more like it were left out: number %d"]
        assert said[0]["level"] == "warning"
        lines.handler.close()
        assert lines.all() == []


def test_a_process_that_ends_says_at_once_what_was_left_out() -> None:
    lines = run("front", "import logging\nfor n in range(30): logging.getLogger('a').info('number %d', n)")
    assert [line["message"] for line in lines[10:]] == ["20 more like it were left out: number %d"]


def test_another_kind_is_not_held_up() -> None:
    limit = Limit()
    kinds = [("a", 20, "one"), ("b", 20, "one"), ("a", 30, "one"), ("a", 20, "two")]
    assert [sum(limit.admits(kind, 5.0) for _ in range(50)) for kind in kinds] == [10] * 4


def test_however_many_kinds_there_are_few_are_remembered() -> None:
    limit = Limit()
    admitted = sum(limit.admits(("a", 20, str(number)), 5.0) for number in range(20_000))
    assert admitted == KINDS_MAX + 10
    assert len(limit._times) == KINDS_MAX + 1
    assert limit.admits(("a", 20, "later"), 7.0)
    assert len(limit._times) < 3


def test_a_log_that_nobody_reads_holds_nobody_up_and_says_so_afterwards() -> None:
    with logger(clock=Clock()) as (log, lines):
        for kind in range(60):  # 10 lines of 4 KiB each: much more than a pipe holds
            for _ in range(10):
                log.info(str(kind) + " %s", "x" * 5000)  # noqa: G003 - kinds are told apart by their templates
        assert len(lines.raw()) <= 1 << 16
        log.info("somebody reads")
        told, line = (one["message"] for one in lines.all())
    assert re.fullmatch(r"58\d lines were left out because they could not be written", told)
    assert line == "somebody reads"


def _log_ten(log: logging.Logger, template: str) -> None:
    for _ in range(10):
        log.info(template, "x" * 500)


def test_threads_do_not_mix_their_lines() -> None:
    with logger(clock=Clock()) as (log, lines):
        threads = [threading.Thread(target=_log_ten, args=(log, f"{number} %s")) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(lines.all()) == 80


# -- a process's own ---------------------------------------------------------------------------------------------------

PROGRAM = """
import sys, threading, warnings
from commands import logs
logs.set_up({role!r})
{code}
"""


def run(role: str, code: str, **environment: str) -> list[dict[str, Any]]:
    """What a process logs as JSON, line for line."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(role=role, code=code)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print('hello\\n\\x1b[31mworld')", "hello\n\x1b[31mworld"),
        ("print('half', end=''); print(' and half', file=sys.stdout)", "half and half"),
        ("sys.stderr.write('a\\nb\\n')", "a\nb"),
        ("warnings.warn('beware\\nnow')", "UserWarning: beware\nnow (<string>:5)"),
        ("1 / 0", "the process ends"),
        ("t = threading.Thread(target=lambda: 1 / 0, name='t'); t.start(); t.join()", "the thread t ends"),
        ("class A:\n    def __del__(self): 1 / 0\nA()", "an exception was ignored"),
        ("import logging; logging.getLogger('waitress').warning('depth %d', 1)", "depth 1"),
    ],
    ids=["print", "in two prints", "stderr", "warning", "exception", "thread", "destructor", "somebody else's logger"],
)  # fmt: skip
def test_what_others_say_goes_the_same_way(code: str, said: str) -> None:
    (line,) = run("worker", code)
    assert line["message"].startswith(said)
    assert line["role"] == "worker"
    assert ("exception" in line) == (" ends" in said or "ignored" in said)


def test_a_print_of_endless_length_is_not_held_for_ever() -> None:
    printed = Printed("stdout")
    for _ in range(100):
        printed.write("x" * 1000)
    assert len(printed._held) < LINE_BYTES_MAX


def test_a_terminal_gets_text_and_everything_else_json() -> None:
    code = PROGRAM.format(role="front", code="import logging; logging.getLogger('a').info('hello')")
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=theirs, check=True, timeout=60)
    on_terminal = os.read(ours, 4096).decode()
    os.close(ours)
    os.close(theirs)
    assert on_terminal.endswith(" a: hello\r\n")
    for told, is_json in (("auto", True), ("json", True), ("text", False)):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, timeout=60,
            env={**os.environ, "LOG_FORMAT": told},
        )  # fmt: skip
        assert done.stderr.startswith(b"{") == is_json


def test_a_program_that_logs_in_its_own_way_is_left_alone() -> None:
    code = "import logging, sys; logging.basicConfig(format='own %(message)s')\nfrom commands import logs\n"
    code += (
        "before = sys.stderr, sys.excepthook; logs.set_up('supervisor'); assert before == (sys.stderr, sys.excepthook)"
    )
    code += "\nlogging.warning('way')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60)
    assert done.stderr == b"own way\n"


def test_the_log_imports_nothing_that_takes_long() -> None:
    code = "import sys; before = set(sys.modules); import commands.logs; print(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"numpy", "orjson", "bottle", "waitress", "tensorflow", "asyncio", "socket", "multiprocessing"}


# -- in a whole server -------------------------------------------------------------------------------------------------

SECRETS = {
    "password": "canary-password",
    "key": "canary-key-of-more-than-32-characters",
    "wrong": "canary-wrong-" + "k" * 32,
}


def test_no_secret_leaves_the_server(tmp_path: Path) -> None:
    """Its database is out of reach, its model fails, keys are right and wrong: nobody hears of a secret by that."""
    (tmp_path / "keys").write_text(SECRETS["key"])
    url = f"postgresql+pg8000://user:{SECRETS['password']}@127.0.0.1:1/db"
    models = [{"name": "double"}, {"name": "poison", "kind": "poison"}, {"name": "broken", "kind": "broken"}]
    heard = []
    with fake_http_server(
        models, environment={"DATABASE_URL": url}, database_url=url, api_key_file=str(tmp_path / "keys"),
        prediction_log_dir=str(tmp_path / "spool"),
    ) as server:  # fmt: skip
        right = {"Authorization": f"Bearer {SECRETS['key']}"}
        for headers in (
            right,
            {"Authorization": f"Bearer {SECRETS['wrong']}"},
            {"Authorization": f"Basic {SECRETS['key']}"},
        ):
            for path, value in (("double", 1.0), ("poison", POISON), ("nobody", 1.0), ("double", "x")):
                heard.append(post(server.url, f"/predict/{path}", {"features": [value]}, **headers))
        assert {reply.status for reply in heard} == {200, 400, 401, 404, 500}
        wait_until(lambda: b"spool" in get(server.url, "/ready").body, SOON_S, "the log is degraded")
        heard.append(get(server.url, "/ready"))
        heard.append(post(server.url, "/metrics", b"", **right))
        for child in psutil.Process(server.pid).children(recursive=True):
            told = Path(f"/proc/{child.pid}/environ").read_bytes() + Path(f"/proc/{child.pid}/cmdline").read_bytes()
            assert b"canary" not in told
        assert b"canary" not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
        log = server.log
    assert "poison" in log
    assert "canary" not in log + repr(heard)
    for line in log.splitlines():
        assert is_one_line(line.encode() + b"\n")


@pytest.mark.parametrize("is_json", [True, False])
def test_a_line_names_the_trace_that_its_request_was_part_of(is_json: bool) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with logger(is_json=is_json) as (log, lines):
        log.error("request %s failed", "r-1", extra={"traceparent": trace})
        log.error("request %s failed", "r-2", extra={"traceparent": ""})
        first, second = lines.raw().decode().splitlines()
    assert trace in first
    assert "trace" not in second
    if is_json:
        assert json.loads(first)["traceparent"] == trace
        assert json.loads(first)["request_id"] == "r-1"


def test_lines_of_children_are_json_with_role_process_and_request() -> None:
    with fake_http_server([{"name": "poison", "kind": "poison"}]) as server:
        assert post(server.url, "/predict/poison", {"features": [POISON]}).status == 500
        wait_until(lambda: "poison" in server.log, SOON_S, "the worker's line")
        lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
        (worker,) = server.children("worker")
    (line,) = [line for line in lines if line["role"] == "worker"]
    assert line["pid"] == worker
    assert line["message"].startswith("poison: ")
