"""How far a file has come, so that whoever goes on writes each row once: the output up to here, and a record beside it.

Owns the files beside the output: NAME.csv.part until it is whole, NAME.csv.journal, NAME.errors.jsonl. What the journal
speaks of is on the disk before it is; what lies beyond is cut off by the next run. Knows nothing of models and rows.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from commands import exits, terminal


@dataclass(frozen=True)
class Mark:
    """A place up to which all is done. rows: read; end: where in the input the next begins; the others: bytes written.

    whole: the last row was written, and only the names are left to be put right.
    """

    rows: int = 0
    end: int = 0
    written: int = 0
    aside: int = 0
    output_bytes: int = 0
    errors_bytes: int = 0
    whole: bool = False


class Journal:
    """The files of one run. made_of: whatever must be the same for a run that goes on, by what it is called.

    Raises terminal.Complaint where something else is there, or another run is at work; OSError.
    """

    def __init__(self, output: Path, made_of: dict[str, Any], beginning: bytes, *, restart: bool) -> None:
        self.output = output
        self.errors = output.with_name(f"{output.stem}.errors.jsonl")
        self._part, self._journal = beside(output, "part"), beside(output, "journal")
        self._made_of = made_of
        self.mark = Mark()
        if not restart:
            self.mark = self._found()
        self.resumed = self._journal.exists() and not restart
        self._is_renamed = self.mark.whole and not self._part.exists()
        self._out = self._opened(self._part)
        self._err = self._opened(self.errors)
        try:
            for file in (self._out, self._err):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise terminal.Complaint(f"another run writes {output.name} just now") from None
        if not self.resumed:
            self._journal.unlink(missing_ok=True)
            self._cut()
            self._out.write(beginning)
            self.keep(replace(self.mark, output_bytes=len(beginning)))
        elif not self.mark.whole:
            self._cut()

    def _found(self) -> Mark:
        """Where the last run came to. Raises terminal.Complaint."""
        begin_anew = "--restart begins anew"
        try:
            told = json.loads(self._journal.read_text())
            mark = Mark(**told["mark"])
        except FileNotFoundError:
            if self.output.exists():
                raise terminal.Complaint(f"{self.output.name} is there already; {begin_anew}", exits.USAGE) from None
            return Mark()
        except (OSError, ValueError, TypeError, KeyError):
            raise terminal.Complaint(f"{self._journal.name} cannot be read; {begin_anew}") from None
        for name, value in self._made_of.items():
            if told["made_of"].get(name) != value:
                raise terminal.Complaint(f"{name} changed since {self.output.name} was begun; {begin_anew}")
        if not mark.whole:
            for path, size in ((self._part, mark.output_bytes), (self.errors, mark.errors_bytes)):
                if (path.stat().st_size if path.exists() else -1) < size:
                    raise terminal.Complaint(f"{path.name} is not what was written; {begin_anew}")
        return mark

    def _opened(self, path: Path) -> IO[bytes]:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", 1 << 20)

    def _cut(self) -> None:
        for file, size in ((self._out, self.mark.output_bytes), (self._err, self.mark.errors_bytes)):
            file.truncate(size)
            file.seek(size)

    def write(self, output: bytes, errors: bytes) -> None:
        """Add to both; nothing of it counts before `keep`."""
        self._out.write(output)
        self._err.write(errors)

    def keep(self, mark: Mark) -> None:
        """All that was written is on the disk, and then that it is."""
        for file in (self._out, self._err):
            file.flush()
            os.fdatasync(file.fileno())
        self.mark = mark
        new = self._journal.with_name(f"{self._journal.name}.new")
        with new.open("wb") as note:
            note.write(json.dumps({"made_of": self._made_of, "mark": asdict(mark)}).encode())
            note.flush()
            os.fsync(note.fileno())
        new.replace(self._journal)
        self._sync_folder()

    def finish(self, first: bytes | None) -> None:
        """The output gets its name, and what else lies beside it goes. first: to be written over its beginning."""
        if not self.mark.whole:
            if first is not None:
                self._out.flush()
                os.pwrite(self._out.fileno(), first, 0)
            self.keep(replace(self.mark, whole=True))
        if self._is_renamed:  # by a run that did not come to the end of this
            self._part.unlink()
        else:
            self._part.replace(self.output)
        if not self.mark.aside:
            self.errors.unlink(missing_ok=True)
        self._sync_folder()
        self._journal.unlink()

    def close(self) -> None:
        self._out.close()
        self._err.close()

    def _sync_folder(self) -> None:
        folder = os.open(self.output.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def beside(output: Path, what: str) -> Path:
    """A file that belongs to the output, by its whole name: out.csv.part."""
    return output.with_name(f"{output.name}.{what}")
