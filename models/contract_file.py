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
    return read_object(path, "the contract file", MAX_CONTRACT_BYTES)


def read_object(path: str | Path, what: str, bytes_max: int) -> dict[str, Any]:
    """The object in a JSON file that a user wrote; `what` names it in the reasons. Raises LoadError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise LoadError(f"{what} has a key twice in one object")
        return result

    def no_constant(name: str) -> Any:
        raise LoadError(f"{what} has {name}, which is not JSON")

    try:
        if Path(path).stat().st_size > bytes_max:
            limit = f"{bytes_max // 1024**2} MiB" if bytes_max >= 1024**2 else f"{bytes_max // 1024} KiB"
            raise LoadError(f"{what} is larger than {limit}")
        data = json.loads(Path(path).read_bytes(), object_pairs_hook=unique, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise LoadError(f"{what} is not valid JSON: line {error.lineno}, column {error.colno}") from None
    except UnicodeDecodeError:
        raise LoadError(f"{what} is not UTF-8") from None
    except RecursionError:
        raise LoadError(f"{what} is nested too deeply") from None
    except OSError as error:
        raise LoadError(f"{what} cannot be read: {error.strerror}") from None
    if not isinstance(data, dict):
        raise LoadError(f"{what} is not a JSON object")
    return data
