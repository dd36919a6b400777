"""How many fronts and decoding threads there are by default, on machines of all sizes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from front.settings import Settings
from front.sizing import decode_threads_of, fronts_of, usable_cores


@pytest.mark.parametrize(
    ("cores", "fronts", "threads"),
    [(1, 1, 2), (2, 1, 2), (3, 1, 3), (4, 2, 2), (8, 4, 2), (16, 4, 4), (64, 4, 8)],
)
def test_fronts_take_half_of_the_cores_and_never_more_than_a_worker_can_serve(
    cores: int, fronts: int, threads: int
) -> None:
    assert fronts_of(Settings(), cores) == fronts
    assert decode_threads_of(Settings(), cores) == threads


def test_more_workers_are_fed_by_more_fronts() -> None:
    assert fronts_of(Settings(workers=3), 64) == 12


def test_what_the_operator_says_goes_before() -> None:
    said = Settings(fronts=3, decode_threads=1)
    assert (fronts_of(said, 2), decode_threads_of(said, 2)) == (3, 1)


@pytest.mark.parametrize("name", ["FRONTS", "DECODE_THREADS"])
def test_auto_leaves_it_to_the_server(name: str) -> None:
    assert Settings.from_environment({name: "auto"}) == Settings()


@pytest.mark.parametrize("name", ["FRONTS", "DECODE_THREADS"])
@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_numbers_that_make_no_sense_are_refused(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=name):
        Settings.from_environment({name: text})


@pytest.mark.parametrize(
    ("text", "cores"),
    [("100000 100000", 1), ("50000 100000", 1), ("100001 100000", 2), ("max 100000", None), ("", None), (None, None)],
)
def test_a_containers_limit_counts(text: str | None, cores: int | None, tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    if text is not None:
        quota.write_text(text)
    there = len(os.sched_getaffinity(0))
    assert usable_cores(quota) == min(cores or there, there)
