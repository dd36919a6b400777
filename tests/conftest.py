"""What all tests share: no process outlives them, and Hypothesis does not time them on a busy machine. What several
folders share: the demo models, real digits that they have never seen, and what a PostgreSQL begins as.
"""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import psutil
import pytest
from PIL import Image

from tests.harness import ROOT
from tests.postgres import Template, postgres_template

# Who starts the tests in the background may have these ignored, which every program that they start would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Kept from run to run, since training takes most of a minute; the script makes what is missing, under a lock.
DEMO_MODELS = ROOT / ".cache" / "demo_models"


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left_behind() -> Iterator[None]:
    yield
    children = psutil.Process().children(recursive=True)
    running = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    assert not running, f"still running: {[child.cmdline() for child in running]}"


@pytest.fixture(scope="session")
def demo_models() -> Path:
    """The folder of demo models, made if need be."""
    command = [sys.executable, str(ROOT / "scripts" / "create_demo_models.py"), "--out", str(DEMO_MODELS)]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert made.returncode == 0, made.stderr
    return DEMO_MODELS


@pytest.fixture(scope="session")
def held_out_digits() -> list[tuple[bytes, int]]:
    """(PNG of 8x8 pixels, digit) of scikit-learn's real digits that the demo model was not trained on."""
    code = (
        "import sys; sys.path.insert(0, 'scripts'); from demo_models.digits import split_digits; import numpy; "
        "numpy.savez(sys.stdout.buffer, *split_digits()[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT, timeout=100)
    with np.load(io.BytesIO(done.stdout)) as arrays:
        digits, classes = arrays["arr_0"], arrays["arr_1"]
    found = []
    for digit, number in zip(digits, classes, strict=True):
        out = io.BytesIO()
        Image.fromarray((digit.reshape(8, 8) * 255).round().astype(np.uint8)).save(out, "PNG")
        found.append((out.getvalue(), int(number)))
    return found


@pytest.fixture(scope="session")
def template() -> Iterator[Template]:
    """The data folder that every PostgreSQL begins as."""
    with postgres_template() as made:
        yield made
