"""Copies of the files that models are loaded from, so that what serves can be loaded again whatever becomes of them.

Owns one hidden folder beside the models, in it one folder for each version as it once was, and whose they are. A file
is cloned where the file system can, copied where its model is small (`cp` over a file writes into what a hard link
would share), and else linked. Where none of that is possible the version is served from where it lies.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from models.fingerprint import FILES_MAX, KEPT, digest, walk
from models.repository import ModelReference

log = logging.getLogger("inference.models")

SMALL_BYTES = 64 * 1024 * 1024
# A folder without a lock is one that is just being made, or was when its server died.
BIRTH_S = 60.0

_CLONE = 0x40049409  # FICLONE: Linux, on file systems that share blocks between files until one is written
_LOCK = "lock"


class Moving(Exception):
    """A version's files changed while they were being kept; they are still being copied."""


class Shelf:
    """The kept copies of one server.

    beside: the folder in which ours is made. What servers that are gone have left there goes, too.
    """

    def __init__(self, beside: Path) -> None:
        self._kept: dict[tuple[str, str, str], ModelReference] = {}
        self._lock = -1
        self._folder: Path | None = None
        self._complaint: str | None = None
        self._has_complained = False
        try:
            beside.mkdir(parents=True, exist_ok=True)
            sweep(beside)
            self._folder, self._lock = _own_folder(beside)
        except OSError as error:
            self._serve_in_place(error)

    def keep(self, reference: ModelReference) -> ModelReference:
        """The same version, with paths of copies that nobody else touches. Raises Moving."""
        key = _key(reference)
        if key not in self._kept or not Path(self._kept[key].path).exists():
            self._kept[key] = self._copied(reference)
        return self._kept[key]

    def retain(self, needed: Iterable[ModelReference]) -> None:
        """Remove the copies of all others."""
        keys = {_key(one) for one in needed}
        for key in self._kept.keys() - keys:
            kept = self._kept.pop(key)
            if self._folder is not None and Path(kept.path).is_relative_to(self._folder):
                shutil.rmtree(self._place(kept), ignore_errors=True)

    def close(self) -> None:
        """Remove everything."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock)
        self._folder = None

    def _place(self, reference: ModelReference) -> Path:
        assert self._folder is not None  # noqa: S101 - asked for only where there is one
        return self._folder / f"{reference.name}-{reference.version}-{reference.digest}"

    def _copied(self, reference: ModelReference) -> ModelReference:
        if self._folder is None:
            return reference
        place = self._place(reference)
        path = place / "model" / Path(reference.path).name
        contract = None if reference.contract_path is None else place / "contract.json"
        try:
            path.parent.mkdir(parents=True)
            _copy_all(Path(reference.path), path)
            if contract is not None and reference.contract_path is not None:
                _copy(reference.contract_path, contract, small=True)
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            if isinstance(error, FileNotFoundError) or digest(reference.path, reference.contract_path) != (
                reference.digest
            ):
                raise Moving from None
            self._serve_in_place(error)
            return reference
        if digest(reference.path, reference.contract_path) != reference.digest:
            shutil.rmtree(place, ignore_errors=True)
            raise Moving
        return replace(reference, path=str(path), contract_path=None if contract is None else str(contract))

    def _serve_in_place(self, error: OSError) -> None:
        self._complaint = self._complaint or error.strerror

    def complain(self) -> None:
        """Say, once, that files cannot be kept; not before the server runs, which may have worse to say."""
        if self._complaint is None or self._has_complained:
            return
        self._has_complained = True
        log.warning(
            "the files of what is served cannot be kept (%s): a worker that dies after they are deleted cannot be"
            " replaced; KEEP_DIR names another folder for them",
            self._complaint,
        )


def sweep(beside: Path) -> None:
    """Remove the folders of servers that are gone."""
    for folder in beside.glob(f"{KEPT}*"):
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            with suppress(OSError):
                if time.time() - folder.lstat().st_mtime > BIRTH_S:
                    shutil.rmtree(folder, ignore_errors=True)
            continue
        try:
            with suppress(OSError):  # somebody's
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _own_folder(beside: Path) -> tuple[Path, int]:
    """A new folder and the lock that says so while we live. Another server's sweep may be faster than the lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=KEPT, dir=beside))
        lock = -1
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.stat(folder / _LOCK)  # noqa: PTH116 - that it is still there
        except (BlockingIOError, FileNotFoundError):
            if lock >= 0:
                os.close(lock)
        except OSError:
            if lock >= 0:
                os.close(lock)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        else:
            return folder, lock


def _copy_all(source: Path, target: Path) -> None:
    """A file, or a folder with all that is in it or that links in it lead to."""
    found = list(walk(source))
    if not found:
        raise FileNotFoundError(source.name)
    if len(found) >= FILES_MAX:
        raise OSError(errno.E2BIG, "there are too many files")
    small = sum(seen.status.st_size for seen in found if not seen.is_folder) <= SMALL_BYTES
    for seen in found:
        if seen.is_folder:
            Path(f"{target}{seen.inside}").mkdir()
        else:
            _copy(seen.path, Path(f"{target}{seen.inside}"), small=small)


def _copy(source: str, target: Path, *, small: bool) -> None:
    real = os.path.realpath(source)
    if _cloned(real, target):
        return
    if small:
        try:
            shutil.copyfile(real, target)
        except OSError:  # the disk is full; a link takes nothing of it
            target.unlink(missing_ok=True)
        else:
            return
    os.link(real, target)


def _cloned(source: str, target: Path) -> bool:
    with open(source, "rb") as old, target.open("xb") as new:  # noqa: PTH123 - one path is a string
        try:
            fcntl.ioctl(new.fileno(), _CLONE, old.fileno())
        except OSError:
            target.unlink()
            return False
    return True


def _key(reference: ModelReference) -> tuple[str, str, str]:
    return reference.name, reference.version, reference.digest
