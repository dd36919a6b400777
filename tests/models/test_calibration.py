"""What was measured, on disk: found again by the same model anywhere, and by nothing else; spoilt files harm nobody."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models import calibration
from models.calibration import XLA, Calibration, settled, steps, threads_of, write
from models.repository import ModelReference

TENSORFLOW = "2.21.0"
MEASURED = Calibration(
    call=XLA,
    sizes=(1, 8),
    threads=1,
    gain=2.0,
    compile_s={1: 0.5, 8: 1.0},
    plain_s={1: 1.0, 4: 4.0, 8: 8.0},
    chosen_s={1: 0.5, 4: 4.0, 8: 5.0},
    best_rows=8,
    two_at_once=0.9,
    measured_at="2026-01-01T00:00:00+00:00",
)


def reference(folder: Path, content: bytes = b"weights", contract: str | None = None) -> ModelReference:
    folder.mkdir()
    path = folder / "m.keras"
    path.write_bytes(content)
    beside = folder / "m.contract.json"
    if contract is not None:
        beside.write_text(contract)
    return ModelReference("m", "1", str(path), "keras", contract_path=None if contract is None else str(beside))


def kept(store: Path, one: ModelReference, found: Calibration = MEASURED) -> Path:
    return write(store, calibration.key_of(one, TENSORFLOW), found)


def found_in(store: Path, one: ModelReference, release: str = TENSORFLOW) -> Calibration | None:
    return settled(one, str(store), release)


def test_what_was_kept_is_found_again_by_a_copy_of_the_model(tmp_path: Path) -> None:
    kept(tmp_path / "store", reference(tmp_path / "a", contract="{}"))
    copy = reference(tmp_path / "b", contract="{}")
    assert found_in(tmp_path / "store", copy) == MEASURED
    assert [path.suffix for path in (tmp_path / "store").iterdir()] == [".json"]


@pytest.mark.parametrize("other", ["weights", "contract", "tensorflow", "processor", "nothing kept"])
def test_it_holds_for_nothing_else(tmp_path: Path, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    if other != "nothing kept":
        kept(store, reference(tmp_path / "a", contract="{}"))
    content = b"weighty" if other == "weights" else b"weights"  # of the same size
    one = reference(tmp_path / "b", content, "[]" if other == "contract" else "{}")
    if other == "processor":
        monkeypatch.setattr(calibration, "processor", lambda: "another one x 64")
    release = "2.22.0" if other == "tensorflow" else TENSORFLOW
    assert found_in(store, one, release) is None


def spoilt(**changes: Any) -> str:
    return json.dumps({"format": calibration.FORMAT, **MEASURED.to_json(), **changes})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "[" * 100_000,
        "\xff\x00",
        json.dumps(MEASURED.to_json()),
        spoilt(format=99),
        spoilt(call="magic"),
        spoilt(call="plain"),
        spoilt(sizes=[]),
        spoilt(sizes=[0]),
        spoilt(sizes=[1, 2]),
        spoilt(sizes=[True]),
        spoilt(sizes={"1": 1}),
        spoilt(threads=-1),
        spoilt(threads="2"),
        spoilt(gain="high"),
        spoilt(gain=float("nan")),
        spoilt(compile_s={"one": 1}),
        spoilt(plain_s=[1.0]),
        spoilt(chosen_s={"1": -1.0}),
        spoilt(surprise=1),
    ],
    ids=str,
)
def test_a_spoilt_or_foreign_file_is_left_out_with_a_line_in_the_log(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = reference(tmp_path / "a")
    kept(tmp_path / "store", one).write_text(text, "latin-1")
    with caplog.at_level(logging.WARNING):
        assert found_in(tmp_path / "store", one) is None
    assert "is left out" in caplog.text


def test_a_folder_that_cannot_be_read_is_an_empty_one(tmp_path: Path) -> None:
    one = reference(tmp_path / "a")
    (tmp_path / "store").write_text("no folder")
    assert found_in(tmp_path / "store", one) is None
    with pytest.raises(OSError, match="store"):
        kept(tmp_path / "store", one)


def test_a_second_measurement_replaces_the_first(tmp_path: Path) -> None:
    one = reference(tmp_path / "a")
    kept(tmp_path / "store", one)
    again = replace(MEASURED, threads=None)
    kept(tmp_path / "store", one, again)
    assert found_in(tmp_path / "store", one) == again
    assert len(list((tmp_path / "store").iterdir())) == 1


def test_threads_are_those_that_all_models_of_the_process_agree_on() -> None:
    two = replace(MEASURED, threads=2)
    assert threads_of([MEASURED, MEASURED]) == 1
    assert threads_of([MEASURED, None]) is None
    assert threads_of([MEASURED, two]) is None
    assert threads_of([replace(MEASURED, threads=None), two]) is None
    assert threads_of([]) is None


def test_rows_between_two_sizes_are_padded_only_where_the_larger_one_is_no_slower() -> None:
    table = steps(MEASURED, MEASURED.sizes)
    assert table == [0, 1, 2, 3, 4, 8, 8, 8, 8]  # 8 rows by XLA take 5 s: as long as 5 plain ones, longer than 4


def test_nothing_compiled_means_nothing_padded() -> None:
    assert steps(MEASURED, ()) == [0]


def test_only_the_small_sizes_are_compiled_where_all_would_take_long() -> None:
    assert MEASURED.compiled_sizes(64) == [1, 8]
    assert MEASURED.compiled_sizes(4) == [1]
    slow = replace(MEASURED, compile_s={1: 0.5, 8: calibration.COMPILE_S_MAX})
    assert slow.compiled_sizes(64) == [1]
