"""Running a loaded model: compiled once, warmed up, then arrays in and arrays out. Imports TensorFlow.

Owns the compiled functions, what goes in and comes out of them, and the row dimension. Knows nothing of files, and
nothing of who asks: rows are rows, whoever they belong to.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf

from models.calibration import PLAIN, XLA, Calibration, steps
from models.compiled import Compiled, for_exactly, unfit_for_xla
from models.contract import Contract, Image, Tensor
from models.errors import LoadError
from models.loading import Program, named

log = logging.getLogger("inference.models")

# What a contract calls TensorFlow's dtypes. bfloat16 has no name outside: it is cast to and from float32.
DTYPES = {
    tf.bool: "bool", tf.int8: "int8", tf.int16: "int16", tf.int32: "int32", tf.int64: "int64",
    tf.uint8: "uint8", tf.uint16: "uint16", tf.uint32: "uint32", tf.uint64: "uint64",
    tf.float16: "float16", tf.float32: "float32", tf.float64: "float64", tf.bfloat16: "float32", tf.string: "string",
}  # fmt: skip

# What XLA computes as TensorFlow does; whole numbers may be indices, which it does not check.
REAL = (tf.float16, tf.float32, tf.float64)
# Two ways to compute the same differ in the last bits.
SAME = 1e-5
# A trial batch has a number of rows that no other dimension is likely to have by chance.
TRIAL_ROWS = 5
# Tried where a dimension takes any size: a stack of convolutions needs more than a few, and a long one takes long.
TRIAL_SIZES = (8, 32, 128)
# Timed calls of each batch size: so many at least, so many at most, and no more once they took so long.
MIN_CALLS, MAX_CALLS, CALLS_S = 3, 20, 0.05
# No larger batch is tried once two in a row have brought less than that in rows/s, nor one whose inputs take so much.
WORTH, WARM_UP_BYTES = 1.05, 64 * 1024 * 1024


class Graph:
    """A program, compiled. Raises LoadError for what cannot be served, and whatever TensorFlow raises while tracing.

    inputs, outputs: as a contract has them. batch_rows: the only number of rows a call can have, None if any will do.
    """

    def __init__(self, program: Program) -> None:
        self.program = program  # keeps the variables alive
        self.inputs = tuple(
            Tensor(one.name, _dtype_name("input", one.name, one.spec.dtype), tuple(one.spec.shape[1:]))
            for one in program.inputs
        )
        fixed = _fixed_rows(program)
        try:
            self._compile(None if program.any_rows else fixed)
        except Exception:
            if fixed is None or not program.any_rows:
                raise
            log.debug("the model wants its own number of rows", exc_info=True)
            self._compile(fixed)

    def _compile(self, batch_rows: int | None) -> None:
        self.batch_rows = batch_rows
        self._names: list[str] = []
        specs = [tf.TensorSpec((batch_rows, *one.shape), one.dtype) for one in self.inputs]
        self.function = Compiled(self._body, specs)
        if not self._names:
            raise LoadError("the model gives no outputs")
        outputs = zip(self._names, self.function.outputs, strict=True)
        self.outputs = tuple(self._described(i, name, tensor) for i, (name, tensor) in enumerate(outputs))

    def _body(self, *tensors: Any) -> list[Any]:
        pairs = zip(tensors, self.program.inputs, strict=True)
        structure = self.program.call(*(tf.cast(tensor, one.spec.dtype) for tensor, one in pairs))
        members = named(structure, self.program.output_names, "outputs")
        self._names = [name for name, _ in members]
        return [_presentable(name, member) for name, member in members]

    def _described(self, index: int, name: str, tensor: Any) -> Tensor:
        dtype = _dtype_name("output", name, tensor.dtype)
        if tensor.shape.rank is None:  # then it has whatever rank it turns out to have
            tried = trial(self.function, self.inputs, self.batch_rows or TRIAL_ROWS)
            if tried is None:
                raise LoadError(f"its output {name!r} may have any number of dimensions")
            shape: tuple[int | None, ...] = (None,) * tried[1][index].ndim
        else:
            shape = tuple(tensor.shape)
        if not shape or shape[0] not in (None, self.batch_rows):
            raise LoadError(f"its output {name!r} does not have one row for each row of input")
        return Tensor(name, dtype, shape[1:])


class Form:
    """One way to give the inputs: what arrays they are, the function for any number of rows, and XLA's for exactly
    so many.
    """

    def __init__(self, inputs: Sequence[Tensor], function: Compiled) -> None:
        self.expected = [_expected(one) for one in inputs]
        self.function = function
        self.exact: dict[int, Compiled] = {}


class LoadedModel:
    """One version of one model, ready to run.

    description: the contract as JSON. max_rows: rows in one call at the most, None for no bound.
    others: the model's further signatures by name, each to be warmed up and run like this one.
    calibration: how it is run and why, as GET /models shows it; None where nothing was measured before.
    """

    def __init__(
        self, graph: Graph, contract: Contract, others: Mapping[str, LoadedModel] = MappingProxyType({})
    ) -> None:
        self.description = contract.to_json()
        self.others = others
        self.max_rows = contract.max_rows
        self._graph = graph
        self.calibration: dict[str, Any] | None = None
        self._adopted: Calibration | None = None
        self._steps: list[int] = []  # the rows to run for so many; for more than it knows, as many as there are
        self._forms = [Form(graph.inputs, graph.function)]
        tried = list(graph.inputs)
        if contract.image is not None:
            index = [one.name for one in graph.inputs].index(contract.image.input)
            tried[index] = _sized(tried[index], contract.image)
            self._add_pixels(index, tried[index], contract.image)
        rows = graph.batch_rows or min(TRIAL_ROWS, self.max_rows or TRIAL_ROWS)
        found = trial(graph.function, tried, rows)
        self._row = None if found is None else found[0]
        for output, values in zip(graph.outputs, found[1] if found else (), strict=False):
            if values.shape[:1] != (rows,):
                raise LoadError(f"its output {output.name!r} does not have one row for each row of input")

    @property
    def trace_count(self) -> int:
        """How often any of its functions was traced. It does not grow once the model is warmed up."""
        return sum(function.traces for form in self._forms for function in (form.function, *form.exact.values()))

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One array for each input in the contract's order, (rows, *shape), strings as objects of bytes; likewise out.

        The input of an image may be uint8 pixels: they are scaled as the contract says. Raises ValueError for arrays
        that are not the contract's, and whatever the model raises.
        """
        rows = len(inputs[0])
        form = self._form_for(inputs, rows)
        steps = self._steps
        size = self._graph.batch_rows or (steps[rows] if rows < len(steps) else rows)
        function = form.exact.get(size, form.function)
        if size == rows:
            return function(inputs)
        pieces = []
        for at in range(0, rows, size):
            chunk = [array[at : at + size] for array in inputs]
            missing = size - len(chunk[0])
            if missing:  # a row of the caller's own, so that nothing strange is computed
                chunk = [np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for array in chunk]
            pieces.append([output[: size - missing] for output in function(chunk)])
        return [np.concatenate(parts) for parts in zip(*pieces, strict=True)] if len(pieces) > 1 else pieces[0]

    def adopt(self, found: Calibration | None) -> None:
        """Be run as was measured to be best; what has to be compiled for that is, at `warm_up`."""
        self._adopted = found
        self.calibration = None if found is None else found.shown()

    def warm_up(self, sizes: Sequence[int], budget_s: float) -> dict[int, float]:
        """Run each number of rows several times, in every form of input: rows -> least seconds of one call.

        The smallest is always run; the next ones while they pay, and can be expected to fit into the budget. Empty when
        the model takes none of the rows we can think of: such a model is served cold.
        """
        self._compile_adopted(max(sizes))
        seconds: dict[int, float] = {}
        useless, rate = 0, 0.0
        row_bytes = sum(array.nbytes for array in self._row or ())
        started = time.perf_counter()
        for rows in sorted(set(sizes)) if self._row is not None else ():
            spent = time.perf_counter() - started
            if seconds:
                last = max(seconds)
                expected = seconds[last] * rows / last * (1 + MIN_CALLS) * len(self._forms)
                if useless > 1 or spent + expected > budget_s or rows * row_bytes > WARM_UP_BYTES:
                    break
            seconds[rows] = max(_least_s(partial(self.run, batch)) for batch in self._batches(rows))
            useless = 0 if rows >= WORTH * rate * seconds[rows] else useless + 1
            rate = max(rate, rows / seconds[rows])
        return seconds

    def compile_for(self, rows: int) -> float:
        """Have XLA compile it for exactly so many rows, which then run so: the seconds that took.

        Raises LoadError where that is not to be had, or answers differ; nothing has changed then.
        """
        if self._graph.batch_rows is not None or any(None in shape for one in self._forms for _, shape in one.expected):
            raise LoadError("only what has no size left open but that of the batch can be compiled")
        if any(tf.as_dtype(one.dtype) not in REAL for one in self._graph.inputs):
            raise LoadError("XLA checks no whole numbers and knows no text")
        if (fault := unfit_for_xla(self._graph.function)) is not None:
            raise LoadError(f"XLA may answer otherwise: {fault}")
        started = time.perf_counter()
        made = []
        for form, batch in zip(self._forms, self.sample(rows), strict=True):
            specs = [tf.TensorSpec((rows, *shape), dtype) for dtype, shape in form.expected]
            try:
                function = for_exactly(form.function, specs)
                answers = function(batch)
            except Exception as error:
                log.debug("XLA does not compile it", exc_info=True)
                raise LoadError(f"XLA does not compile it ({type(error).__name__})") from None
            made.append((form, function, batch, answers))
        took_s = time.perf_counter() - started
        if not all(agree(form.function(batch), answers) for form, _, batch, answers in made):
            raise LoadError("compiled by XLA it answers otherwise")
        for form, function, _, _ in made:
            form.exact[rows] = function
        self._steps = max(self._steps, list(range(rows + 1)), key=len)
        return took_s

    def _compile_adopted(self, most: int) -> None:
        """What XLA is to run, before anybody asks; where that fails, all is called plainly."""
        found = self._adopted
        if found is None or self._row is None:
            return
        sizes = found.compiled_sizes(most)
        try:
            for rows in sizes:
                self.compile_for(rows)
        except LoadError as error:
            log.warning("%s is not run as it was calibrated: %s", self.description["name"], error.reason)
            sizes = []
            for form in self._forms:
                form.exact.clear()
        self._steps = steps(found, sizes)
        if not sizes and found.call == XLA:
            found = replace(found, call=PLAIN, gain=1.0)
        self.calibration = replace(found, sizes=tuple(sizes)).shown()

    def canary(self) -> None:
        """One call with the trial row; raises whatever the model raises. Nothing where no row is known to be good."""
        if self._row is not None:
            self.run(next(self._batches(1)))

    def sample(self, rows: int) -> Iterator[list[np.ndarray]]:
        """The same rows at every call, for each form of input: numbers of many kinds where any will do."""
        for form, batch in zip(self._forms, self._batches(rows), strict=True):
            chance = np.random.default_rng(rows)
            yield [
                chance.integers(0, 256, array.shape, np.uint8) if dtype == np.uint8
                else chance.normal(size=array.shape).astype(dtype) if dtype is not None and dtype.kind == "f"
                else array
                for array, (dtype, _) in zip(batch, form.expected, strict=True)
            ]  # fmt: skip

    def _batches(self, rows: int) -> Iterator[list[np.ndarray]]:
        """The trial row so many times, for each form of input."""
        for form in self._forms:
            yield [
                np.repeat(array if dtype is None else array.astype(dtype), rows, axis=0)
                for array, (dtype, _) in zip(self._row or (), form.expected, strict=True)
            ]

    def _form_for(self, inputs: Sequence[np.ndarray], rows: int) -> Form:
        for form in self._forms:
            expected = form.expected
            if len(expected) == len(inputs) and all(
                _fits(array, dtype, (rows, *shape)) for array, (dtype, shape) in zip(inputs, expected, strict=True)
            ):
                return form
        raise ValueError(f"not the contract's arrays: {[(array.dtype, array.shape) for array in inputs]}")

    def _add_pixels(self, index: int, tensor: Tensor, image: Image) -> None:
        """A second form of input: uint8 pixels, cast and scaled where the model runs."""
        if tensor.dtype == "uint8":  # the form that is there already; a contract cannot scale it
            return
        dtype = tf.as_dtype(tensor.dtype)
        precise = tf.float64 if dtype == tf.float64 else tf.float32
        graph = self._graph

        def body(*tensors: Any) -> list[Any]:
            scaled = tf.cast(tensors[index], precise) * tf.constant(image.scale, precise)
            scaled = tf.cast(scaled + tf.constant(image.offset, precise), dtype)
            result: list[Any] = graph.function.concrete(*tensors[:index], scaled, *tensors[index + 1 :])
            return result

        inputs = list(graph.inputs)
        inputs[index] = replace(tensor, dtype="uint8")
        specs = [tf.TensorSpec((graph.batch_rows, *one.shape), one.dtype) for one in inputs]
        self._forms.append(Form(inputs, Compiled(body, specs)))


def trial(function: Compiled, inputs: Sequence[Tensor], rows: int) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """A row (1, *shape) for each input that the model takes, and what it answers to `rows` of them; None without.

    A model may be right to refuse our rows (an empty string is no picture), so that alone is no reason not to serve it.
    Raises LoadError when it fails in another way.
    """
    free = any(None in one.shape for one in inputs)
    for filler in (0, 1):
        for size in TRIAL_SIZES if free else TRIAL_SIZES[:1]:
            row = [_row(one, size, filler) for one in inputs]
            try:
                return row, function([np.repeat(array, rows, axis=0) for array in row])
            except tf.errors.InvalidArgumentError:
                log.debug("the model refuses a trial batch", exc_info=True)
            except tf.errors.OpError:
                log.exception("the model fails on a trial batch")
                raise LoadError("it fails on a trial batch; the server's log has the details") from None
    log.warning("the model takes neither zeros nor ones, so it is not warmed up")
    return None


def agree(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> bool:
    """Whether two ways to compute the same have given the same, but for the last bits."""
    return len(ours) == len(theirs) and all(
        a.shape == b.shape
        and (
            np.array_equal(a, b)
            if a.dtype.kind not in "fc"
            else bool(np.allclose(a, b, rtol=SAME, atol=SAME, equal_nan=True))
        )
        for a, b in zip(ours, theirs, strict=True)
    )


def _row(tensor: Tensor, size: int, filler: int) -> np.ndarray:
    shape = (1, *(size if dimension is None else dimension for dimension in tensor.shape))
    if tensor.dtype == "string":
        return np.full(shape, b"1" if filler else b"", object)
    return np.full(shape, filler, tensor.dtype)


def _sized(tensor: Tensor, image: Image) -> Tensor:
    """The input of an image with the dimensions that its pictures will have."""
    channels = 3 if image.colour == "rgb" else 1
    sizes = (image.height, image.width, channels)
    return replace(tensor, shape=tuple(own or size for own, size in zip(tensor.shape, sizes, strict=False)))


def _expected(tensor: Tensor) -> tuple[np.dtype | None, tuple[int | None, ...]]:
    return None if tensor.dtype == "string" else np.dtype(tensor.dtype), tensor.shape


def _fits(array: np.ndarray, dtype: np.dtype | None, shape: tuple[int | None, ...]) -> bool:
    if array.dtype != dtype if dtype is not None else array.dtype.kind not in "OSU":
        return False
    return array.shape == shape or (
        array.ndim == len(shape)
        and all(theirs in (None, ours) for ours, theirs in zip(array.shape, shape, strict=True))
    )


def _fixed_rows(program: Program) -> int | None:
    sizes = sorted({one.spec.shape[0] for one in program.inputs} - {None})
    if len(sizes) > 1:
        raise LoadError(f"its inputs want different numbers of rows: {sizes}")
    return sizes[0] if sizes else None


def _dtype_name(what: str, name: str, dtype: Any) -> str:
    if dtype not in DTYPES:
        raise LoadError(f"its {what} {name!r} is of dtype {dtype.name}, which is not served")
    return DTYPES[dtype]


def _presentable(name: str, member: Any) -> Any:
    """An output as it leaves the graph."""
    if isinstance(member, tf.RaggedTensor | tf.SparseTensor):
        raise LoadError(f"its output {name!r} is a sparse or ragged tensor")
    if not tf.is_tensor(member):
        raise LoadError(f"its output {name!r} is not a tensor")
    tensor = tf.convert_to_tensor(member)
    return tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor


def _least_s(call: Callable[[], object]) -> float:
    """Seconds of one call, once the first is done: that one prepares what the others find.

    The least, not the mean: what comes on top is what else the machine did, and would make a batch size look bad.
    """
    call()
    times: list[float] = []
    while len(times) < MIN_CALLS or (len(times) < MAX_CALLS and sum(times) < CALLS_S):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)
