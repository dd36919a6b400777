"""A block of rows through the model: what is written to the output, and what is set aside.

Owns the two ways a block goes: all at once where every row fits, else row by row with the words a server has for each
that does not. Knows neither files nor progress. Safe to use from many threads.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import orjson

from batching.errors import ItemFailed
from commands.score_form import Form, JsonLines
from commands.score_source import Block, Source
from front.bulk import Bulk
from models.dialects import native
from models.dialects.dialect import Call, Request, nothing
from models.errors import BadInput, ModelsError
from models.tensors import Array

# A file's row may be as large as it likes; what one may be at all is the source's affair.
_BYTES_MAX, _ROWS_MAX = 1 << 40, 1 << 31
_REASONS = {
    "model_error": "the model could not answer this input",
    "bad_output": "the model answered with something that cannot be carried",
    "worker_crashed": "the model's process died of this input",
}


class Scored(NamedTuple):
    """What came of a block. written: rows in `output`; aside: rows in `errors`, a line of JSON each."""

    block: Block
    written: int
    output: bytes
    aside: int
    errors: bytes


class Rows:
    """Blocks of one file through one model. keeps: whether the output holds the input's rows, too."""

    def __init__(self, source: Source, bulk: Bulk, form: Form, *, keeps: bool) -> None:
        self._source = source
        self._bulk = bulk
        self._compiled = bulk.entry.compiled_for(None)
        self._form = form
        self._keeps = keeps

    def score(self, block: Block) -> Scored:
        """Both. Raises what Bulk.compute raises when no worker comes back."""
        whole = self._source.whole(self._compiled, block)
        if whole is None:
            return self._one_by_one(block)
        answered = self._bulk.compute([whole])
        kept = range(block.rows) if answered.kept is None else answered.kept.tolist()
        texts = [block.texts[place] for place in kept] if self._keeps else None
        output = self._form.rows(answered.outputs, texts) if len(kept) else b""
        return self._scored(block, len(kept), output, {place: _why(e) for place, e in answered.failures.items()})

    def _one_by_one(self, block: Block) -> Scored:
        requests: dict[int, Request] = {}
        failures: dict[int, str] = {}
        for place in range(block.rows):
            try:
                call = Call("predict", self._source.body(block, place), nothing, _BYTES_MAX, _ROWS_MAX)
                requests[place] = native.parse(self._bulk.entry, call)
            except (ModelsError, ValueError, csv.Error) as error:
                failures[place] = _why(error)
        found = self._answers(requests, failures)
        pieces = []
        for place, outputs in found.items():
            try:
                pieces.append(self._written(block, place, requests[place], outputs))
            except ModelsError as error:
                failures[place] = _why(error)
        return self._scored(block, len(pieces), b"".join(pieces), failures)

    def _answers(self, requests: dict[int, Request], failures: dict[int, str]) -> dict[int, list[list[Array]]]:
        """The outputs of every item of the requests that have an answer; items of one shape go together."""
        groups: dict[tuple[tuple[int, ...], ...], list[tuple[int, int]]] = {}
        for place, request in requests.items():
            for index, item in enumerate(request.items):
                groups.setdefault(tuple(array.shape[1:] for array in item.arrays), []).append((place, index))
        found: dict[int, list[list[Array]]] = {place: [[]] * len(one.items) for place, one in requests.items()}
        for members in groups.values():
            items = [requests[place].items[index] for place, index in members]
            answered = self._bulk.compute(
                [np.concatenate(parts) for parts in zip(*(i.arrays for i in items), strict=True)]
            )
            owners = np.repeat(np.arange(len(items)), [len(item.rows) for item in items])
            for row, error in answered.failures.items():
                failures.setdefault(members[owners[row]][0], _why(error))
            kept = owners if answered.kept is None else owners[answered.kept]
            stops = np.searchsorted(kept, np.arange(len(items)), side="right").tolist()
            for (place, index), start, stop in zip(members, [0, *stops], stops, strict=False):
                found[place][index] = [output[start:stop] for output in answered.outputs]
        return {place: outputs for place, outputs in found.items() if place not in failures}

    def _written(self, block: Block, place: int, request: Request, outputs: Sequence[Sequence[Array]]) -> bytes:
        if isinstance(self._form, JsonLines):
            return native.render_predict(self._compiled, request, outputs) + b"\n"
        if request.count != 1:
            raise BadInput("the line holds several rows, which only a .jsonl output can answer in one")
        return self._form.rows(outputs[0], [block.texts[place]] if self._keeps else None)

    def _scored(self, block: Block, written: int, output: bytes, failures: dict[int, str]) -> Scored:
        lines = [
            orjson.dumps({"row": block.first + place, "input": self._source.shown(block, place), "message": message})
            for place, message in sorted(failures.items())
        ]
        return Scored(block, written, output, len(lines), b"".join(line + b"\n" for line in lines))


def _why(error: Exception) -> str:
    """As a server would say it."""
    if isinstance(error, ItemFailed):
        return _REASONS.get(error.reason, str(error))
    if isinstance(error, BadInput) and error.expected and error.expected not in error.message:
        return f"{error.message} (expected: {error.expected})"
    return str(error)
