"""The load generator: runs wrk once and reads what it says. Owns its command line and the bodies that it sends.

Knows nothing of who answers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("load.lua")
# A request that takes longer counts as an error. wrk's own 2 s would be too short for a burst of pictures.
TIMEOUT_S = 10


class WrkError(Exception):
    """wrk is missing or did not do its work; the message says it in one line."""


@dataclass(frozen=True)
class Load:
    """One run. errors: answers above 399, refused, broken and late connections; the percentiles are milliseconds."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int
    max_ms: float = 0.0

    @property
    def requests_per_s(self) -> float:
        """Answers received within the run; what was under way at its end is not counted."""
        return self.requests / self.seconds


@dataclass(frozen=True)
class Bodies:
    """Bodies written to a folder as 1, 2, …: wrk posts each in its turn, so that no answer can come from a cache."""

    folder: Path
    count: int
    headers: Mapping[str, str]

    @classmethod
    def write(cls, folder: Path, bodies: Sequence[bytes], content_type: str, **headers: str) -> Bodies:
        """Write them into a new folder. headers: further ones of all of them, with _ for -."""
        folder.mkdir()
        for number, body in enumerate(bodies, 1):
            (folder / str(number)).write_bytes(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(folder, len(bodies), {"Content-Type": content_type, **named})


def find() -> str:
    """The path of wrk. Raises WrkError where PATH has none."""
    path = shutil.which("wrk")
    if path is None:
        raise WrkError("needs the load generator wrk on PATH (Debian: apt-get install wrk)")
    return path


def run(url: str, *, connections: int, seconds: int, bodies: Bodies | None = None) -> Load:
    """Load `url` over so many keep-alive connections, each with one request under way. Raises WrkError.

    It POSTs `bodies`, or GETs where there are none. One thread: a second would only take from the server's cores.
    """
    command = [
        find(),
        "--threads=1",
        f"--connections={connections}",
        f"--duration={seconds}s",
        f"--timeout={TIMEOUT_S}s",
    ]
    headers = [part for header in bodies.headers.items() for part in header] if bodies else []
    arguments = ["--", str(bodies.folder), str(bodies.count), *headers] if bodies else []
    try:
        ended = subprocess.run(
            [*command, f"--script={SCRIPT}", url, *arguments],
            capture_output=True,
            text=True,
            timeout=seconds + 30,
            start_new_session=True,  # Ctrl-C is ours to handle
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WrkError("wrk did not end in time") from None
    lines = ended.stdout.splitlines()
    if ended.returncode != 0 or not lines or not lines[-1].startswith("{"):
        raise WrkError(f"wrk failed: {(ended.stderr or ended.stdout).strip()[-300:]}")
    return Load(**json.loads(lines[-1]))
