"""What TensorFlow's import leaves in a fresh process, and what a model without examples does without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = """
import gc, json, sys
from models import runtime
runtime.import_tensorflow()
frozen, enabled = gc.get_freeze_count(), gc.isenabled()
runtime.import_tensorflow()
print(json.dumps([frozen, enabled, gc.get_freeze_count() == frozen, "models.rehearsal" in sys.modules]))
"""


def test_its_objects_are_frozen_once_and_collecting_goes_on() -> None:
    ended = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, check=True)
    frozen, is_enabled, is_frozen_once, has_rehearsal = json.loads(ended.stdout)
    assert frozen > 100_000
    assert is_enabled
    assert is_frozen_once
    assert not has_rehearsal
