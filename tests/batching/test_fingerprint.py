"""Files of models that change, and how cheaply that is seen."""

from __future__ import annotations

import os
from pathlib import Path

from batching.fingerprint import FILES_MAX, fingerprint


def references(path: Path, contract: Path | None = None) -> list[dict[str, str | None]]:
    return [{"name": "m", "version": "1", "path": str(path), "contract_path": str(contract) if contract else None}]


def test_it_is_equal_until_a_file_is_written_replaced_or_gone(tmp_path: Path) -> None:
    file = tmp_path / "m.keras"
    seen = [fingerprint(references(file))]

    def is_new() -> bool:
        seen.append(fingerprint(references(file)))
        return seen[-1] not in seen[:-1]

    file.write_bytes(b"one")
    assert is_new()
    assert not is_new()
    file.write_bytes(b"three")
    assert is_new()
    other = tmp_path / "other"
    other.write_bytes(b"seven")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)
    assert is_new()
    file.unlink()
    assert fingerprint(references(file)) == seen[0]


def test_a_file_deep_in_a_folder_counts_and_so_does_the_contract(tmp_path: Path) -> None:
    folder, contract = tmp_path / "m", tmp_path / "contract.json"
    (folder / "variables").mkdir(parents=True)
    deep = folder / "variables" / "variables.index"
    deep.write_bytes(b"1")
    contract.write_text("{}")
    first = fingerprint(references(folder, contract))
    deep.write_bytes(b"12")
    second = fingerprint(references(folder, contract))
    contract.write_text("{ }")
    assert len({first, second, fingerprint(references(folder, contract))}) == 3


def test_a_folder_of_very_many_files_is_looked_at_only_so_far(tmp_path: Path) -> None:
    for number in range(FILES_MAX + 50):
        (tmp_path / str(number)).touch()
    assert len(fingerprint(references(tmp_path))) == FILES_MAX


def test_references_without_files_never_change() -> None:
    assert fingerprint([{"name": "fake", "version": "1"}]) == fingerprint([])
