"""One traced graph as a function of arrays, called by the shortest way into TensorFlow. Imports TensorFlow.

Owns how a graph is called and how often it was traced. Knows nothing of models, contracts and rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

try:  # what TensorFlow's own generated operations are made of; no release so far was without it
    from tensorflow.python.eager.context import context
    from tensorflow.python.eager.core import _FallbackException, _NotOkStatusException
    from tensorflow.python.framework.ops import EagerTensor, raise_from_not_ok_status
    from tensorflow.python.pywrap_tfe import TFE_Py_FastPathExecute as execute
except ImportError:
    execute = None

RELEASE: str = tf.__version__


class Compiled:
    """One traced graph: arrays in, arrays out. Its signature is fixed, so it cannot be traced again.

    A concrete function spends 0.25 ms in checking and binding its arguments and in a general way of executing. The
    operation that stands for it does neither (0.34 -> 0.06 ms for a small model), and without the attributes that are
    as they are by themselves, and without copies of what nobody else writes to, it takes 0.02 ms; all with the same
    bits as the result. What comes out may share its memory with what went in.
    """

    def __init__(self, body: Callable[..., list[Any]], specs: Sequence[tf.TensorSpec]) -> None:
        self.traces = 0

        def traced(*tensors: Any) -> list[Any]:
            self.traces += 1
            return body(*tensors)

        self.concrete = tf.function(traced, input_signature=specs, autograph=False).get_concrete_function()
        self.outputs = list(self.concrete.outputs)
        self._dtypes = [output.dtype for output in self.outputs]
        self._numbers = [dtype.as_datatype_enum for dtype in self._dtypes]
        self._captured = list(self.concrete.captured_inputs)
        with tf.device("/CPU:0"):
            self._device = tf.constant(0).backing_device
        self._context = None if execute is None else context()

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs for arrays of exactly the signature's dtypes and shapes, which nothing here checks."""
        if self._context is None:
            return self._call(arrays)
        device = self._device
        try:
            outputs = execute(
                self._context, "StatefulPartitionedCall", None,
                [*[EagerTensor(array, device, None) for array in arrays], *self._captured],
                "Tout", self._numbers, "f", self.concrete,
            )  # fmt: skip
        except _NotOkStatusException as error:
            raise_from_not_ok_status(error, None)
        except _FallbackException:  # somebody listens to every operation, a profiler perhaps
            return self._call(arrays)
        return [output._numpy_internal() for output in outputs]  # noqa: SLF001 - numpy() without its copy

    def _call(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The same by the public way."""
        outputs = tf.raw_ops.StatefulPartitionedCall(
            args=[*map(tf.constant, arrays), *self._captured], Tout=self._dtypes, f=self.concrete
        )
        return [output.numpy() for output in outputs]


# What XLA does otherwise than TensorFlow without saying so: an index beyond the end is moved to the end, not refused.
_UNLIKE = {"Gather", "GatherNd", "GatherV2", "TensorScatterUpdate", "UnsortedSegmentSum"}
# It keeps no checks and draws other random numbers: of what has an effect, only reading what was trained is safe.
_HARMLESS = {"PartitionedCall", "ReadVariableOp", "StatefulPartitionedCall", "VarHandleOp"}


def unfit_for_xla(function: Compiled) -> str | None:
    """Why XLA might answer something else where TensorFlow refuses, or answer otherwise each time."""
    definition = function.concrete.graph.as_graph_def()
    nodes = [*definition.node, *(node for one in definition.library.function for node in one.node_def)]
    for name in sorted({node.op for node in nodes}):
        known = op_def_registry.get(name)
        if name in _UNLIKE or (name not in _HARMLESS and (known is None or known.is_stateful)):
            return f"it uses the operation {name}"
    return None


def for_exactly(function: Compiled, specs: Sequence[tf.TensorSpec]) -> Compiled:
    """The same graph, compiled by XLA at its first call, for these shapes alone.

    The function that XLA compiles is called from within another: the operation that stands for a function does not look
    whether it is to be compiled.
    """

    def body(*tensors: Any) -> list[Any]:
        # An output that is an input, or another output, would have no buffer of its own.
        return [tf.identity(output) for output in function.concrete(*tensors)]

    return Compiled(tf.function(body, autograph=False, jit_compile=True), specs)
