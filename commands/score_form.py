"""Answers as the rows of a file: comma-separated values, JSON Lines or a numpy array.

Owns what a file of answers looks like. Knows nothing of models at work, nor of when a file is written.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from commands import exits, terminal
from commands.score_source import flat_names
from models.contract import Contract
from models.tensors import Array, dumps, to_json

# Room for any shape in the header of a numpy file, as the number of rows is known last.
NPY_HEADER_BYTES = 256


class Form(Protocol):
    """How answers are written.

    beginning: what stands before the first row. rows: of answers, the texts of their rows as the input has them, where
    it has; None: the answers alone. finished: what to write over the beginning once the number of rows is known.
    """

    beginning: bytes

    def rows(self, outputs: Sequence[Array], texts: Sequence[bytes] | None) -> bytes: ...

    def finished(self, rows: int) -> bytes | None: ...


def form_of(path: Path, contract: Contract, header: list[str] | None) -> Form:
    """By the file's ending. header: of the input, to be kept. Raises terminal.Complaint."""
    if path.suffix == ".csv":
        return Csv(contract, header)
    if path.suffix == ".jsonl":
        return JsonLines(contract)
    if path.suffix == ".npy":
        return Numpy(contract)
    raise terminal.Complaint(f"-o {path.name} must be a .csv, .jsonl or .npy file", exits.USAGE)


class Csv:
    """The input's columns, if any, then one for each number that the model gives."""

    def __init__(self, contract: Contract, header: list[str] | None) -> None:
        self._null_for_nan = contract.null_for_nan
        names = [name for tensor in contract.outputs for name in flat_names(tensor)]
        kept = header or []
        columns = [*kept, *(f"predicted_{name}" if name in kept else name for name in names)]
        self.beginning = (",".join(map(_quoted, columns)) + "\n").encode()

    def rows(self, outputs: Sequence[Array], texts: Sequence[bytes] | None) -> bytes:
        columns: list[Sequence[bytes]] = [] if texts is None else [texts]
        columns += [_cells(output, null_for_nan=self._null_for_nan) for output in outputs]
        return _lines(columns[0] if len(columns) == 1 else map(b",".join, zip(*columns, strict=True)))

    def finished(self, rows: int) -> bytes | None:
        return None


class JsonLines:
    """What POST /predict answers to each row."""

    def __init__(self, contract: Contract) -> None:
        self.beginning = b""
        self._contract = contract
        self._ending = dumps({"model_version": contract.version})[1:]

    def rows(self, outputs: Sequence[Array], texts: Sequence[bytes] | None) -> bytes:
        tensors = self._contract.outputs
        columns = [
            _values(output.reshape(-1) if tensor.shape == (1,) else output, null_for_nan=self._contract.null_for_nan)
            for output, tensor in zip(outputs, tensors, strict=True)
        ]
        if len(tensors) == 1:
            answers: Iterable[bytes] = columns[0]
        else:
            frame = b"{" + b",".join(dumps(tensor.name).replace(b"%", b"%%") + b":%b" for tensor in tensors) + b"}"
            answers = map(frame.__mod__, zip(*columns, strict=True))
        ending = self._ending.replace(b"%", b"%%")
        framed: Callable[[bytes], bytes] = (b'{"ok":true,"prediction":%b,' + ending).__mod__
        return _lines(map(framed, answers))

    def finished(self, rows: int) -> bytes | None:
        return None


class Numpy:
    """One array: the only output as it is, or several as the columns of one table."""

    def __init__(self, contract: Contract) -> None:
        tensors = contract.outputs
        if any(tensor.dtype == "string" or None in tensor.shape for tensor in tensors):
            raise terminal.Complaint("the model answers with what no array of one size holds: use .jsonl", exits.USAGE)
        self._lone = len(tensors) == 1
        self._dtype = np.result_type(*(np.dtype(tensor.dtype) for tensor in tensors)).newbyteorder("<")
        columns = sum(len(flat_names(tensor)) for tensor in tensors)
        self._row = tuple(size or 0 for size in tensors[0].shape) if self._lone else (columns,)
        self.beginning = self._header(0)

    def _header(self, rows: int) -> bytes:
        told = f"{{'descr': '{self._dtype.str}', 'fortran_order': False, 'shape': {(rows, *self._row)}, }}"
        room = NPY_HEADER_BYTES - 10
        return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + told.ljust(room - 1).encode() + b"\n"

    def rows(self, outputs: Sequence[Array], texts: Sequence[bytes] | None) -> bytes:
        if self._lone:
            return outputs[0].astype(self._dtype, copy=False).tobytes()
        return np.concatenate([one.reshape(len(one), -1).astype(self._dtype) for one in outputs], axis=1).tobytes()

    def finished(self, rows: int) -> bytes | None:
        return self._header(rows)


def _lines(rows: Iterable[bytes]) -> bytes:
    return b"".join([b"\n".join(rows), b"\n"])


def _values(output: Array, *, null_for_nan: bool) -> list[bytes]:
    """The JSON of each row."""
    found = to_json(output, null_for_nan=null_for_nan)
    if isinstance(found, np.ndarray) and found.ndim == 1:
        return dumps(found)[1:-1].split(b",")
    if isinstance(found, np.ndarray) and found.ndim == 2 and found.shape[1]:
        return [b"[%b]" % row for row in dumps(found)[2:-2].split(b"],[")]
    return [dumps(row) for row in found]


def _cells(output: Array, *, null_for_nan: bool) -> list[bytes]:
    """The cells of each row, commas between them."""
    flat = output.reshape(len(output), -1)
    found = to_json(flat, null_for_nan=null_for_nan)
    if isinstance(found, np.ndarray):
        return dumps(found)[2:-2].replace(b"null", b"").split(b"],[")
    return [",".join(_quoted(str(value)) for value in row).encode() for row in found]


def _quoted(text: str) -> str:
    """A cell as the csv module writes it."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([text])
    return out.getvalue()
