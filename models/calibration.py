"""What was measured of a model on this machine: which call is quickest, with how many threads, and where that is kept.

Owns the entry, one small JSON file for each model, release of TensorFlow and processor, and which settings hold in a
process that several models share. Knows nothing of how it is measured (models.calibration_search) or run
(models.execution), and needs no TensorFlow.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from models.fingerprint import walk
from models.repository import ModelReference

log = logging.getLogger("inference.models")

PLAIN, XLA = "plain", "xla"
# Another number whenever an older release's figures would mislead: its plain call was another one.
FORMAT = 1
FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "calibration"
SIZES_MAX = 64
ENTRY_BYTES_MAX = 64 * 1024
# All compiling before READY together; what does not fit into it, the largest first, is called plainly.
COMPILE_S_MAX = 3.0


@dataclass(frozen=True)
class Calibration:
    """One model's.

    call: PLAIN or XLA. sizes: rows of the batches that XLA is clearly quicker for. compile_s: what it takes to compile
    each of them. threads: TensorFlow's in this process, None for its own choice.
    gain: rows/s at the best size, over the plain call with TensorFlow's own choice of threads.
    plain_s, chosen_s: seconds of a call by its rows, with these threads.
    two_at_once: rows/s of two batches at once over one by one; the worker runs one at a time.
    """

    call: str = PLAIN
    sizes: tuple[int, ...] = ()
    threads: int | None = None
    gain: float = 1.0
    compile_s: Mapping[int, float] = field(default_factory=dict)
    plain_s: Mapping[int, float] = field(default_factory=dict)
    chosen_s: Mapping[int, float] = field(default_factory=dict)
    best_rows: int = 1
    two_at_once: float | None = None
    measured_at: str = ""

    def to_json(self) -> dict[str, Any]:
        """A JSON-safe dictionary; `from_json` gives an equal one back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Calibration:
        """The inverse of `to_json`, whoever wrote it. Raises ValueError for what cannot be one."""
        if not isinstance(data, dict) or data.keys() != cls.__dataclass_fields__.keys():
            raise ValueError("it has other fields")
        made = cls(
            call=data["call"],
            sizes=tuple(_rows(one) for one in _list(data["sizes"])),
            threads=None if data["threads"] is None else _rows(data["threads"]),
            gain=_number(data["gain"]),
            compile_s=_seconds(data["compile_s"]),
            plain_s=_seconds(data["plain_s"]),
            chosen_s=_seconds(data["chosen_s"]),
            best_rows=_rows(data["best_rows"]),
            two_at_once=None if data["two_at_once"] is None else _number(data["two_at_once"]),
            measured_at=str(data["measured_at"])[:40],
        )
        if made.call not in (PLAIN, XLA) or (made.call == XLA) != bool(made.sizes):
            raise ValueError("it names no call that there is")
        if not set(made.sizes) <= made.compile_s.keys() & made.plain_s.keys() & made.chosen_s.keys():
            raise ValueError("it lacks figures")
        return made

    def compiled_sizes(self, most: int) -> list[int]:
        """The sizes to compile at start for batches of `most` rows: the small ones, as far as the time goes."""
        chosen: list[int] = []
        spent_s = 0.0
        for size in sorted(self.sizes):
            spent_s += self.compile_s[size]
            if size > most or spent_s > COMPILE_S_MAX:
                break
            chosen.append(size)
        return chosen

    def shown(self) -> dict[str, Any]:
        """What GET /models says."""
        return {
            "call": self.call,
            "sizes": list(self.sizes),
            "threads": self.threads,
            "gain": round(self.gain, 2),
            "best_rows": self.best_rows,
            "measured_at": self.measured_at,
        }


def steps(found: Calibration, sizes: Iterable[int]) -> list[int]:
    """For each number of rows how many to run: a compiled size, or themselves where the plain call is as quick.

    Between two measured sizes the plain call is on the straight line through them: a larger executable takes rows in
    only where it is no slower than that.
    """
    table = [0]
    for size in sorted(sizes):
        for rows in range(len(table), size + 1):
            pays = rows == size or found.chosen_s[size] <= _line(found.plain_s, rows)
            table.append(size if pays else rows)
    return table


def _line(seconds: Mapping[int, float], rows: int) -> float:
    below = max((size for size in seconds if size <= rows), default=None)
    above = min((size for size in seconds if size >= rows), default=None)
    if below is None or above is None:
        return 0.0  # nothing is known, so nothing pays
    if below == above:
        return seconds[below]
    part = (rows - below) / (above - below)
    return seconds[below] + (seconds[above] - seconds[below]) * part


# -- the store ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """What an entry holds for. size_bytes: of all its files; where nobody has that size, no file need be read."""

    size_bytes: int
    digest: str

    @property
    def name(self) -> str:
        return f"{self.size_bytes}-{self.digest}.json"


def folder_of(setting: str | None) -> Path:
    """Where the entries are."""
    return FOLDER if setting is None else Path(setting)


def settled(reference: ModelReference, setting: str | None, tensorflow: str) -> Calibration | None:
    """What is known of a model on this machine; None for nothing, or nothing that can be read.

    setting: CALIBRATION_DIR. tensorflow: its release.
    """
    folder = folder_of(setting)
    with suppress(OSError):
        if any(folder.glob(f"{_size(reference)}-*.json")):
            return _read(folder / key_of(reference, tensorflow).name)
    return None


def threads_of(together: Iterable[Calibration | None]) -> int | None:
    """The threads that all models of a process have been found quickest with; None where they do not agree."""
    wanted = {None if one is None else one.threads for one in together}
    return wanted.pop() if len(wanted) == 1 else None


def write(folder: Path, key: Key, found: Calibration) -> Path:
    """Keep it, whole or not at all. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, **found.to_json()}, indent=1)
    handle, path = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(path).replace(folder / key.name)
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise
    return folder / key.name


def key_of(reference: ModelReference, tensorflow: str) -> Key:
    """By contents, so that a copy of a model has its entry. Raises OSError."""
    marks = hashlib.sha256(repr((FORMAT, tensorflow, processor())).encode())
    for inside, path in _files(reference):
        with Path(path).open("rb") as file:
            marks.update(inside.encode() + hashlib.file_digest(file, "sha256").digest())
    return Key(_size(reference), marks.hexdigest()[:32])


def processor() -> str:
    """Its model and how many cores of it are ours."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} x {cores()}"
    return f"{platform.processor() or platform.machine()} x {cores()}"


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _files(reference: ModelReference) -> list[tuple[str, str]]:
    """(what it is called inside the model, where it is), the same for every copy of it."""
    found = [(f"model{seen.inside}", seen.path) for seen in walk(reference.path) if not seen.is_folder]
    return found + ([("contract", reference.contract_path)] if reference.contract_path is not None else [])


def _size(reference: ModelReference) -> int:
    with suppress(OSError):
        return sum(Path(path).stat().st_size for _, path in _files(reference))
    return 0


def _read(path: Path) -> Calibration | None:
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(ENTRY_BYTES_MAX))
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise ValueError("it is of another format")
        return Calibration.from_json(data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        log.warning("the calibration %s is left out: %s", path.name, why)
        return None


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > SIZES_MAX:
        raise ValueError("a list is missing")
    return value


def _rows(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 1 << 20:
        raise ValueError("a number is not above 0")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e9:
        raise ValueError("a number makes no sense")
    return float(value)


def _seconds(value: Any) -> dict[int, float]:
    if not isinstance(value, dict) or len(value) > SIZES_MAX:
        raise ValueError("figures are missing")
    return {_rows(int(rows)): _number(seconds) for rows, seconds in value.items()}
