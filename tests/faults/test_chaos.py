"""scripts/chaos, for a moment: everything at once, by a seed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.harness import ROOT

CHAOS = ROOT / "scripts" / "chaos.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_hangs_leaks_or_is_lost_in_chaos(seed: int) -> None:
    ended = subprocess.run(
        [sys.executable, str(CHAOS), "--requests", "500", "--seed", str(seed)],
        capture_output=True,
        text=True,
        timeout=110,
        env=ENVIRONMENT,
    )
    sys.stdout.write(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "500 requests in" in ended.stdout
