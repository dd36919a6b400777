"""A fake model with any inputs: what it is given comes back, under other names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.contract import Contract, Tensor


class Echo:
    """Each input's value as an output: `x` as `x_out`.

    Reference: name, version, and `inputs`: [name, dtype, shape of one row] of each.
    """

    def __init__(self, reference: dict[str, Any]) -> None:
        inputs = tuple(Tensor(name, dtype, tuple(shape)) for name, dtype, shape in reference["inputs"])
        outputs = tuple(Tensor(f"{tensor.name}_out", tensor.dtype, tensor.shape) for tensor in inputs)
        self.description = Contract(reference["name"], reference["version"], inputs, outputs).to_json()
        self.max_rows: int | None = None
        self.calibration: dict[str, Any] | None = None
        self.others: dict[str, Echo] = {}

    def warm_up(self, sizes: Sequence[int], budget_s: float) -> dict[int, float]:
        return dict.fromkeys(sizes, 1e-5)

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(inputs)

    def canary(self) -> None:
        """Never sick."""
