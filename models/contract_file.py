"""A `contract.json` as a file: what a user wrote, read strictly. What it may say is the affair of models.narrowing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.errors import LoadError

MAX_CONTRACT_BYTES = 4 * 1024 * 1024  # examples may hold a picture or two


def read_contract(path: str | Path) -> dict[str, Any]:
    """What a user wrote in a contract file, unchecked but for JSON itself.

    Raises LoadError for what is no JSON object, has a key twice, or is unreasonably large.
    """
    try:
        if Path(path).stat().st_size > MAX_CONTRACT_BYTES:
            raise LoadError(f"the contract file is larger than {MAX_CONTRACT_BYTES // 1024**2} MiB")
        data = json.loads(Path(path).read_bytes(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise LoadError(f"the contract file is not valid JSON: line {error.lineno}, column {error.colno}") from None
    except UnicodeDecodeError:
        raise LoadError("the contract file is not UTF-8") from None
    except RecursionError:
        raise LoadError("the contract file is nested too deeply") from None
    except OSError as error:
        raise LoadError(f"the contract file cannot be read: {error.strerror}") from None
    if not isinstance(data, dict):
        raise LoadError("the contract file is not a JSON object")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise LoadError("the contract file has a key twice in one object")
    return result


def _no_constant(name: str) -> Any:
    raise LoadError(f"the contract file has {name}, which is not JSON")
