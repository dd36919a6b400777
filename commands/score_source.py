"""The rows of a file, block by block: comma-separated values, JSON Lines or a numpy array, from any row on.

Owns where a row ends and what it is as a request's body. A block is a few megabytes at the most, whatever the file's
size. Knows nothing of what becomes of the rows.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import orjson

from commands import exits, terminal
from models import bulk
from models.contract import Contract, Tensor
from models.forms import VALUE
from models.schema import Compiled
from models.tensors import Array

READ_BYTES = 1 << 20
RECORD_BYTES_MAX = 64 << 20
# Lines in a block: four times as many no longer fit a core's cache, and take 1.6 times as long to parse.
LINES_MAX = 2048
BLOCK_BYTES = 4 << 20  # of a numpy array
_QUOTE, _LINE = b'"', b"\n"
_BETWEEN = b"],["  # rows, as lists in a list


class Block(NamedTuple):
    """Some rows. first: the number of the first one, from 1 on. end: where in the file the next one begins.

    texts: the rows as they stand in the file, without their line ends; values: the rows of a numpy file.
    """

    first: int
    end: int
    rows: int
    texts: Sequence[bytes]
    values: Array | None


class Source(Protocol):
    """A file of one kind. size: its bytes. header: the first line of comma-separated values, None in other kinds.

    blocks: all rows from a place on, at most `rows_max` in one. whole: a block's rows as the model's input, None where
    they must go row by row. body: a row as a request's body. shown: the same for people, JSON-safe.
    """

    size: int
    header: list[str] | None

    def blocks(self, start: int, first: int, rows_max: int) -> Iterator[Block]: ...

    def whole(self, compiled: Compiled, block: Block) -> Array | None: ...

    def body(self, block: Block, place: int) -> bytes: ...

    def shown(self, block: Block, place: int) -> Any: ...


def open_source(path: Path, contract: Contract) -> Source:
    """The file by its ending. Raises terminal.Complaint where it cannot be read or does not fit the model, OSError."""
    if path.suffix == ".csv":
        return Csv(path, contract)
    if path.suffix == ".jsonl":
        return JsonLines(path, contract)
    if path.suffix == ".npy":
        return Numpy(path, contract)
    raise terminal.Complaint(f"{path.name} must be a .csv, .jsonl or .npy file", exits.USAGE)


class _Lines:
    """What files of lines have in common; `begin` is where the first row does."""

    def __init__(self, path: Path, *, quoted: bool) -> None:
        self._path = path
        self._quoted = quoted
        self.size = path.stat().st_size
        self.header: list[str] | None = None
        self._begin = 0

    def blocks(self, start: int, first: int, rows_max: int) -> Iterator[Block]:
        at_once = min(rows_max, LINES_MAX)
        with self._path.open("rb") as file:
            end = max(start, self._begin)
            file.seek(end)
            for text in self._texts(file):
                records = _split(text) if self._quoted else text.split(_LINE)
                untidy = b"\r" in text or text.startswith(_LINE) or b"\n\n" in text or not text
                for at in range(0, len(records), at_once):
                    piece = records[at : at + at_once]
                    end = min(end + sum(map(len, piece)) + len(piece), self.size)
                    texts = [one for one in map(_stripped, piece) if one] if untidy else piece
                    if texts:
                        yield Block(first, end, len(texts), texts, None)
                        first += len(texts)

    def _texts(self, file: IO[bytes]) -> Iterator[bytes]:
        """Whole records as they come in, without the last one's line end."""
        held = b""
        while piece := file.read(READ_BYTES):
            held += piece
            cut = _last_end(held) if self._quoted else held.rfind(_LINE)
            if cut < 0:
                if len(held) > RECORD_BYTES_MAX:
                    raise terminal.Complaint(
                        f"{self._path.name} has a row of over {terminal.size(RECORD_BYTES_MAX)}; is a quote not closed?"
                    )
                continue
            yield held[:cut]
            held = held[cut + 1 :]
        if held:
            yield held


def _stripped(text: bytes) -> bytes:
    return text.removesuffix(b"\r")


def _last_end(text: bytes) -> int:
    """Where the last line ends that is no part of a quoted cell; -1 without one."""
    cut = text.rfind(_LINE)
    odd = text.count(_QUOTE, 0, max(cut, 0)) % 2
    while cut >= 0 and odd:
        quote = text.rfind(_QUOTE, 0, cut)
        before = text.rfind(_LINE, 0, quote)
        odd = (odd - text.count(_QUOTE, max(before, 0), cut)) % 2
        cut = before
    return cut


def _split(text: bytes) -> list[bytes]:
    lines = text.split(_LINE)
    if _QUOTE not in text:
        return lines
    records: list[bytes] = []
    begun: list[bytes] = []
    odd = 0
    for line in lines:
        begun.append(line)
        odd ^= line.count(_QUOTE) % 2
        if not odd:
            records.append(_LINE.join(begun))
            begun = []
    return records


# ---------------------------------------------------------------------------------------------- comma-separated values


class Csv(_Lines):
    """Columns are found by the header: a model's fields, or its inputs' names, x[0], x[1], … where one has several.

    A lone input without named fields also takes the columns as they stand, where there are just as many.
    """

    def __init__(self, path: Path, contract: Contract) -> None:
        super().__init__(path, quoted=True)
        self._contract = contract
        with path.open("rb") as file:
            first = next((_split(text)[0] for text in self._texts(file)), b"")
        self._begin = min(len(first) + 1, self.size)
        try:
            self.header = _cells(_stripped(first).decode("utf-8-sig"))
        except (UnicodeDecodeError, csv.Error) as error:
            why = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else f"has a header that is none: {error}"
            raise terminal.Complaint(f"{path.name} {why}") from None
        wanted = columns_of(contract)
        self._places = _places(path.name, self.header, wanted, lone=len(contract.inputs) == 1 and not contract.fields)
        self._is_plain = self._places == list(range(len(self.header)))

    def whole(self, compiled: Compiled, block: Block) -> Array | None:
        joined = _BETWEEN.join(block.texts)
        if not self._is_plain or _QUOTE in joined:
            rows = self._picked(block.texts)
            if rows is None:
                return None
            joined = _BETWEEN.join(rows)
        return bulk.from_values(compiled, b"[%b]" % joined, block.rows, flat=True)

    def _picked(self, texts: Sequence[bytes]) -> list[bytes] | None:
        """The model's columns of each row; None where a row has not enough."""
        try:
            rows = [_cells(text.decode()) for text in texts]
            return [",".join([row[place] for place in self._places]).encode() for row in rows]
        except (UnicodeDecodeError, IndexError, csv.Error):
            return None

    def body(self, block: Block, place: int) -> bytes:
        """Raises ValueError for a row that has not the header's cells."""
        cells = _cells(block.texts[place].decode())
        if self.header is not None and len(cells) != len(self.header):
            raise ValueError(f"the row has {len(cells)} cells, the header has {len(self.header)}")
        picked = iter([cells[at] for at in self._places])
        fields = self._contract.fields
        if fields:
            dtype = self._contract.inputs[0].dtype
            return orjson.dumps({field.name: _value(next(picked), dtype) for field in fields})
        values = {tensor.name: _nested(tensor, picked) for tensor in self._contract.inputs}
        return orjson.dumps(values if len(values) > 1 else {VALUE: values.popitem()[1]})

    def shown(self, block: Block, place: int) -> Any:
        return block.texts[place].decode(errors="replace")


def columns_of(contract: Contract) -> list[str]:
    """What the model's numbers are called in a header. Raises terminal.Complaint for inputs of any size."""
    if contract.fields:
        return [field.name for field in contract.fields]
    return [name for tensor in contract.inputs for name in flat_names(tensor)]


def flat_names(tensor: Tensor) -> list[str]:
    """One for each number of a row: the tensor's, or x[0], x[1], … where it has several. Raises terminal.Complaint."""
    if None in tensor.shape:
        raise terminal.Complaint(f"{tensor.name} is of any size, which columns are not: use .jsonl", exits.USAGE)
    count = math.prod(size or 0 for size in tensor.shape)
    return [tensor.name] if count == 1 else [f"{tensor.name}[{index}]" for index in range(count)]


def _places(file: str, header: list[str], wanted: list[str], *, lone: bool) -> list[int]:
    """Where in a row each wanted column stands. Raises terminal.Complaint."""
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise terminal.Complaint(f"{file}: the header names {twice[:64]!r} twice")
    if all(map(_is_number, header)):
        shown = ", ".join(wanted[:4]) + (", …" if len(wanted) > 4 else "")
        raise terminal.Complaint(f"{file} has no header: its first line must name the columns, such as {shown}")
    missing = [name for name in wanted if name not in header]
    if not missing:
        return [header.index(name) for name in wanted]
    if lone and len(header) == len(wanted):
        return list(range(len(header)))
    raise terminal.Complaint(f"{file} has no column {missing[0]!r}; the model's are: {', '.join(wanted)[:300]}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cells(line: str) -> list[str]:
    return next(csv.reader([line], strict=True), [])


def _value(cell: str, dtype: str) -> Any:
    """A cell as JSON would say it; the text itself where it is none of the dtype, for the contract to refuse."""
    if dtype == "string":
        return cell
    try:
        return orjson.loads(cell.strip().lower())
    except orjson.JSONDecodeError:
        pass
    try:
        number = float(cell)  # .5, 1. and +1 are numbers in such files
    except ValueError:
        return cell
    return number if math.isfinite(number) else cell


def _nested(tensor: Tensor, cells: Iterator[str], axis: int = 0) -> Any:
    if axis == len(tensor.shape):
        return _value(next(cells), tensor.dtype)
    return [_nested(tensor, cells, axis + 1) for _ in range(tensor.shape[axis] or 0)]


# ---------------------------------------------------------------------------------------------- JSON Lines


class JsonLines(_Lines):
    """Each line is a request's body."""

    def __init__(self, path: Path, contract: Contract) -> None:
        super().__init__(path, quoted=False)
        names = [tensor.name for tensor in contract.inputs]
        self._keys = (VALUE, *names) if len(names) == 1 and not contract.fields else (VALUE,)

    def whole(self, compiled: Compiled, block: Block) -> Array | None:
        """Lines that begin alike, {"features": …}, are their values within the same frame."""
        texts = block.texts
        prefix = texts[0][: texts[0].find(b":") + 1]
        if prefix not in {b'{"%b":' % key.encode() for key in self._keys} or not texts[-1].endswith(b"}"):
            return None
        joined, between = _LINE.join(texts), b"}\n%b" % prefix
        if joined.count(between) != block.rows - 1:
            return None
        return bulk.from_values(compiled, joined.replace(between, b",")[len(prefix) : -1], block.rows)

    def body(self, block: Block, place: int) -> bytes:
        return block.texts[place]

    def shown(self, block: Block, place: int) -> Any:
        return block.texts[place].decode(errors="replace")


# ---------------------------------------------------------------------------------------------- numpy arrays


class Numpy:
    """One array, whose first axis are the rows, of the model's only input."""

    def __init__(self, path: Path, contract: Contract) -> None:
        self._path = path
        self.size = path.stat().st_size
        self.header: list[str] | None = None
        if len(contract.inputs) != 1:
            raise terminal.Complaint(f"{path.name} is one array, and the model has several inputs: use .jsonl")
        try:
            mapped = np.load(path, mmap_mode="r")  # only its header is read
        except ValueError as error:
            raise terminal.Complaint(f"{path.name} cannot be read: {error}") from None
        if not isinstance(mapped, np.memmap) or not mapped.ndim or mapped.dtype.kind not in "bfiu":
            raise terminal.Complaint(f"{path.name} must be an array of numbers whose first axis are the rows")
        if mapped.ndim > 1 and not mapped.flags.c_contiguous:
            raise terminal.Complaint(f"{path.name} lies in Fortran's order: save np.ascontiguousarray of it")
        self._begin = int(mapped.offset)
        self._rows, self._row, self._dtype = len(mapped), mapped.shape[1:], mapped.dtype

    def blocks(self, start: int, first: int, rows_max: int) -> Iterator[Block]:
        """Read, not mapped: what is mapped counts as ours, and a file that is cut short would kill us."""
        row_values = math.prod(self._row)
        row_bytes = row_values * self._dtype.itemsize
        at_once = min(rows_max, max(BLOCK_BYTES // max(row_bytes, 1), 1))
        with self._path.open("rb") as file:
            file.seek(max(start, self._begin))
            while first <= self._rows:
                rows = min(at_once, self._rows - first + 1)
                values = np.fromfile(file, self._dtype, rows * row_values)
                if len(values) != rows * row_values:
                    raise terminal.Complaint(f"{self._path.name} has become shorter")
                yield Block(first, file.tell(), rows, (), values.reshape(rows, *self._row))
                first += rows

    def whole(self, compiled: Compiled, block: Block) -> Array | None:
        return None if block.values is None else bulk.from_array(compiled, block.values)

    def body(self, block: Block, place: int) -> bytes:
        return orjson.dumps({VALUE: self.shown(block, place)})

    def shown(self, block: Block, place: int) -> Any:
        return None if block.values is None else block.values[place].tolist()
