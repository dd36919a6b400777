"""A contract file is read strictly, and what is wrong with it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.contract_file import MAX_CONTRACT_BYTES, read_contract
from models.errors import LoadError


def test_what_is_written_comes_back_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "contract.json").write_text('{"fields": ["ü"], "more": {"a": null, "b": 1e3}}', encoding="utf-8")
    assert read_contract(tmp_path / "contract.json") == {"fields": ["ü"], "more": {"a": None, "b": 1000.0}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "not valid JSON: line 1, column 2"),
        (b'{"a": 1, "a": 2}', "a key twice"),
        (b'{"a": NaN}', "NaN, which is not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b" " * (MAX_CONTRACT_BYTES + 1), "larger than 4 MiB"),
    ],
    ids=["broken", "twice", "NaN", "list", "encoding", "deep", "large"],
)
def test_what_is_no_contract_is_refused_with_the_reason(tmp_path: Path, text: bytes, reason: str) -> None:
    (tmp_path / "contract.json").write_bytes(text)
    with pytest.raises(LoadError, match=reason):
        read_contract(tmp_path / "contract.json")


def test_a_vanished_file_is_a_reason_and_no_crash(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot be read: No such file"):
        read_contract(tmp_path / "gone.json")
