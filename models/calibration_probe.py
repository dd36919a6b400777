"""The process that measures one candidate, seen from outside: told, heard, given up after its time, gone at the end.

Owns the process. It may crash or hang, and harms nobody.
"""

from __future__ import annotations

import json
import selectors
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, Self


class Lost(Exception):
    """It ended or took too long; why, in words."""


class Probe:
    """entry: the command that runs models.calibration_child. limit_s: all it may take together.

    description: the model's contract as JSON. Entering raises Lost for what cannot be loaded.
    """

    def __init__(
        self,
        entry: Sequence[str],
        environment: Mapping[str, str],
        reference: dict[str, Any],
        options: dict[str, Any],
        limit_s: float,
    ) -> None:
        self._entry = entry
        self._environment = environment
        self._first = {"reference": reference, "options": options}
        self._limit_s = limit_s
        self._heard = b""

    def __enter__(self) -> Self:
        self._until = time.monotonic() + self._limit_s
        try:
            self._process = subprocess.Popen(
                self._entry, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self._environment
            )
        except OSError as error:
            raise Lost(f"no process can be started: {error.strerror}") from None
        try:
            loaded = self._told(self._first)
        except BaseException:
            self.__exit__()
            raise
        self.description: dict[str, Any] = loaded["description"]
        self.tensorflow: str = loaded["tensorflow"]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._process.wait()

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        """What it answers to one of the orders of calibration_child.Measuring. Raises Lost."""
        return self._told({"do": do, **order})

    def _told(self, order: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 - both were asked for
        assert stdout is not None  # noqa: S101
        try:
            stdin.write(json.dumps(order).encode() + b"\n")
            stdin.flush()
        except OSError:
            raise Lost(self._end()) from None
        answer: dict[str, Any] = json.loads(self._line(stdout))
        if "refused" in answer:
            raise Lost(answer["refused"])
        return answer

    def _line(self, stdout: IO[bytes]) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._heard:
                if not selector.select(max(self._until - time.monotonic(), 0.0)):
                    raise Lost(f"it takes longer than {self._limit_s:.0f} s")
                data = stdout.read1(1 << 20)  # type: ignore[attr-defined]
                if not data:
                    raise Lost(self._end())
                self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    def _end(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(5)
            return f"its process died ({'exit code' if code >= 0 else 'signal'} {abs(code)}); stderr has the details"
        return "its process does not answer"
