"""What the tests of the guard share: files of keys, and what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

KEY, OTHER_KEY, ADMIN_KEY = (f"{word}-key-of-more-than-32-characters" for word in ("first", "second", "admins"))
BEARER = "Bearer "


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Any]:
    """Settings with two keys for predictions and one for admins."""
    (tmp_path / "keys").write_text(f"# of the shop\n{KEY}\n\n  {OTHER_KEY}  \r\n")
    (tmp_path / "admin").write_text(ADMIN_KEY)
    return {"api_key_file": str(tmp_path / "keys"), "admin_key_file": str(tmp_path / "admin")}
