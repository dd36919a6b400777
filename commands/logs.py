"""How each of our processes writes its log: one line for one event, to stderr, whatever the event's text holds.

JSON where stderr is no terminal, text for people where it is (LOG_FORMAT). A line is at most 4 KiB, without control
characters; of each kind (logger and template) there are at most 10 in any second, and what was left out is counted and
said afterwards. What others print or warn of goes the same way. Every process imports this first, so it imports little.

A line that begins "request %s" is about a request, and names it by its first argument; others say so by `extra`, as
every one does that was part of somebody's trace (`traceparent`).
"""

from __future__ import annotations

import io
import json
import logging
import os
import select
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

# What a pipe takes in one piece: processes that share one never mix their lines.
LINE_BYTES_MAX = 4096
LINES_PER_SECOND = 10
KINDS_MAX = 1000
STDERR = 2
# Processes that print nothing of their own: whatever somebody's code prints there belongs into the log.
CHILDREN = ("front", "worker", "shipper")
_OTHERS = ("", logging.WARNING, "lines of many kinds")

Kind = tuple[str, int, str]


def set_up(role: str, format: str | None = None) -> None:
    """Log from now on, as this process. role: "supervisor", "front", "worker", …; format: text, json or auto (None: as
    LOG_FORMAT says, which is how children learn it). A program that logs in a way of its own is left alone.
    """
    root = logging.getLogger()
    if root.handlers:
        return
    root.addHandler(LineHandler(role, is_json=_is_json(format or os.environ.get("LOG_FORMAT", "auto"))))
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    warnings.formatwarning = _one_warning  # without the source line, which says less
    sys.excepthook = _on_exception
    threading.excepthook = _on_thread_exception
    sys.unraisablehook = _on_unraisable
    if role in CHILDREN:
        sys.stdout = Printed("stdout")
        sys.stderr = Printed("stderr")


def choose(format: str) -> None:
    """Change the format, now that the settings are known; children are told by their environment."""
    os.environ["LOG_FORMAT"] = format
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineHandler):
            handler.is_json = _is_json(format)


def _is_json(format: str) -> bool:
    return format == "json" or (format != "text" and not os.isatty(STDERR))


class LineHandler(logging.Handler):
    """Writes records as lines. A log that nobody reads, or that is full, holds nobody up: lines are left out then."""

    def __init__(
        self, role: str, *, is_json: bool, fd: int = STDERR, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self.is_json = is_json
        self._role = role
        self._fd = fd
        self._clock = clock
        self._limit = Limit()
        self._timer: threading.Timer | None = None
        self._unread = 0
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or count it. Never raises: there is nobody to tell."""
        try:
            if self._limit.admits((record.name, record.levelno, str(record.msg)[:500]), self._clock()):
                self._write(Event.of(record))
            elif self._timer is None:
                self._timer = threading.Timer(1.0, self.say_left_out)
                self._timer.daemon = True
                self._timer.start()
        except Exception:  # noqa: BLE001 - a log that fails must not fail what it is about
            self._unread += 1

    def say_left_out(self) -> None:
        """One line for each kind of which lines were left out."""
        self.acquire()
        try:
            self._timer = None
            for (logger, level, template), count in self._limit.left_out():
                message = f"{count} more like it were left out: {template}"
                self._write(Event(time.time(), logging.getLevelName(level), logger, message))
        finally:
            self.release()

    def close(self) -> None:
        """Say now what would be said later."""
        if self._timer is not None:
            self._timer.cancel()
            self.say_left_out()
        super().close()

    def _write(self, event: Event) -> None:
        if self._unread:
            told = f"{self._unread} lines were left out because they could not be written"
            if not self._put(Event(event.created, "WARNING", __name__, told)):
                self._unread += 1
                return
            self._unread = 0
        if not self._put(event):
            self._unread += 1

    def _put(self, event: Event) -> bool:
        """Whether the line left; a pipe that says it is ready takes a line of this length whole."""
        if not self._poll.poll(0):
            return False
        try:
            os.write(self._fd, event.line(self._role, is_json=self.is_json))
        except OSError:
            return False
        return True


class Limit:
    """How many lines of each kind there were within the last second, and how many were left out since that was said."""

    def __init__(self) -> None:
        self._times: dict[Kind, deque[float]] = {}
        self._left_out: dict[Kind, int] = {}

    def admits(self, kind: Kind, now: float) -> bool:
        """Whether one more may be written; otherwise it is counted."""
        if kind not in self._times and len(self._times) >= KINDS_MAX:
            self._times = {one: times for one, times in self._times.items() if now - times[-1] < 1.0}
            kind = kind if len(self._times) < KINDS_MAX else _OTHERS
        times = self._times.setdefault(kind, deque(maxlen=LINES_PER_SECOND))
        if len(times) < LINES_PER_SECOND or now - times[0] >= 1.0:
            times.append(now)
            return True
        self._left_out[kind] = self._left_out.get(kind, 0) + 1
        return False

    def left_out(self) -> list[tuple[Kind, int]]:
        """How many of which kinds, once."""
        found, self._left_out = list(self._left_out.items()), {}
        return found


class Event(NamedTuple):
    """What happened, in one process. created: seconds since 1970."""

    created: float
    level: str
    logger: str
    message: str
    request_id: str = ""
    exception: str = ""
    traceparent: str = ""

    @classmethod
    def of(cls, record: logging.LogRecord) -> Event:
        """A record's; one whose arguments do not fit its template is shown without them."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            message = f"{record.msg} (its arguments do not fit)"
        request_id = getattr(record, "request_id", "")
        if not request_id and isinstance(record.args, tuple) and str(record.msg).startswith("request %s"):
            request_id = str(record.args[0])
        exception = ""
        if record.exc_info and record.exc_info[0] is not None:
            exception = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        if record.stack_info:
            exception = f"{exception}\n{record.stack_info}".strip()
        traceparent = getattr(record, "traceparent", "")
        return cls(record.created, record.levelname, record.name, message, request_id, exception, traceparent)

    def line(self, role: str, *, is_json: bool) -> bytes:
        """One line, with its end. What is too long loses its middle: a traceback's end and beginning say most."""
        message, exception = _cut(self.message, LINE_BYTES_MAX), _cut(self.exception, LINE_BYTES_MAX)
        make = self._json if is_json else self._text
        while len(line := make(role, message, exception)) >= LINE_BYTES_MAX:
            if len(exception) > 1000 or len(exception) > len(message):
                exception = _cut(exception, len(exception) * 3 // 4)
            else:
                message = _cut(message, len(message) * 3 // 4)
        return line + b"\n"

    def _json(self, role: str, message: str, exception: str) -> bytes:
        fields: dict[str, Any] = {
            "time": self._when(),
            "level": self.level.lower(),
            "role": role,
            "pid": os.getpid(),
            "logger": self.logger[:100],
            "message": message,
        }
        if self.request_id:
            fields["request_id"] = self.request_id[:128]
        if self.traceparent:
            fields["traceparent"] = self.traceparent[:64]
        if exception:
            fields["exception"] = exception
        return json.dumps(fields).encode()

    def _text(self, role: str, message: str, exception: str) -> bytes:
        trace = f" (traceparent {self.traceparent[:64]})" if self.traceparent else ""
        text = f"{self._when()} {self.level} {role}[{os.getpid()}] {self.logger[:100]}: {message}{trace}"
        lines = [text, *exception.splitlines()]
        return " | ".join(map(_printable, lines)).encode()

    def _when(self) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.created))
        return f"{seconds}.{int(self.created % 1 * 1000):03d}Z"


class Printed(io.TextIOBase):
    """Stands in for a stream: what is printed there is logged, one event for each print."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._log = logging.getLogger(name)
        self._held = ""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return STDERR

    def write(self, text: str) -> int:
        """Log what ends a line; the beginning of one is held until then."""
        held = self._held + text
        self._held = ""
        if not held.endswith("\n") and len(held) < LINE_BYTES_MAX:
            self._held = held
        elif held.strip():
            self._log.warning("%s", held.rstrip("\n"))
        return len(text)


def _printable(text: str) -> str:
    """Without anything that a terminal would obey: control characters, escapes, what turns the direction of text."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _cut(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    half = max((length - 5) // 2, 0)
    return f"{text[:half]} ... {text[len(text) - half :]}"


def _one_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"{category.__name__}: {message} ({Path(filename).name}:{lineno})"


def _on_exception(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logging.getLogger("inference").critical("the process ends", exc_info=(kind, error, trace))


def _on_thread_exception(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None:
        found = (failed.exc_type, failed.exc_value, failed.exc_traceback)
        name = failed.thread.name if failed.thread else "?"
        logging.getLogger("inference").error("the thread %s ends", name, exc_info=found)


def _on_unraisable(failed: sys.UnraisableHookArgs) -> None:
    if failed.exc_value is not None:
        found = (failed.exc_type, failed.exc_value, failed.exc_traceback)
        what = failed.err_msg or "an exception was ignored"
        logging.getLogger("inference").error("%s", what, exc_info=found)
