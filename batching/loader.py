"""What a worker holds: every model it was told to load, warmed up, and what was wrong with the others.

What the models are is the loader's affair: `module:function`, called as `load(reference, options)`; see LoadedModel.
"""

from __future__ import annotations

import gc
import importlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from batching.batch import LoadedModel, Served

log = logging.getLogger("inference.worker")

# A model's place numbers: the usual signature's, then those of the others. The reader of a frame has 16 bits for one.
SIGNATURES_MAX = 16
# How long the other signatures of a model may be measured, all together: they are seldom asked for.
OTHERS_BUDGET_S = 0.5
# A model call is stuck when it takes so many times the slowest one at warm-up, unless the operator says how long.
SLOW_CALLS = 10


def batch_limit_s(options: dict[str, Any], served: Sequence[Served]) -> float:
    """Seconds that a model call may take before this process is thought stuck."""
    if options["batch_limit_ms"] is not None:
        return float(options["batch_limit_ms"]) / 1000
    slowest_s = max((seconds for one in served for seconds in one.costs.values()), default=0.0)
    return max(float(options["predict_timeout_ms"]) / 1000, SLOW_CALLS * slowest_s)


@dataclass(frozen=True)
class Loaded:
    """One version of one model: its usual signature, and the others by name."""

    usual: Served
    others: dict[str, Served] = field(default_factory=dict)

    @property
    def all(self) -> list[Served]:
        return [self.usual, *self.others.values()]

    def report(self) -> dict[str, Any]:
        """What the supervisor and the fronts hear of it."""
        usual = self.usual
        return {
            "name": usual.name,
            "version": usual.version,
            "index": usual.index,
            "description": usual.model.description,
            "costs": usual.costs,
            "calibration": usual.model.calibration,
            "signatures": [
                {"name": name, "index": one.index, "description": one.model.description, "costs": one.costs}
                for name, one in self.others.items()
            ],
        }


def load_all(hello: dict[str, Any]) -> tuple[list[Loaded], list[dict[str, str]]]:
    """(what can be served, what cannot and why). One bad model never keeps the others from serving."""
    # What suits one model may not suit another beside it: each load knows of all.
    options = {**hello["options"], "together": hello["models"]}
    module, function = hello["loader"].split(":")
    load = getattr(importlib.import_module(module), function)
    loaded: list[Loaded] = []
    failures: list[dict[str, str]] = []
    # The index is the place in the references, so that it means the same in every worker, whatever that could load.
    for index, reference in enumerate(hello["models"]):
        try:
            one = _loaded(index * SIGNATURES_MAX, load(reference, options), reference, options)
        except Exception as error:
            reason = getattr(error, "reason", None)
            if not isinstance(reason, str):  # some foreign errors have a reason of another kind
                log.exception("%s version %s cannot be loaded", reference["name"], reference["version"])
                reason = "loading failed; the server's log has the details"
            failures.append({"name": reference["name"], "version": reference["version"], "reason": reason})
        else:
            loaded.append(one)
    # TensorFlow leaves some 276,000 objects: one full collection would stop everything for 0.2 s.
    gc.collect()
    gc.freeze()
    return loaded, failures


def _loaded(index: int, model: LoadedModel, reference: dict[str, Any], options: dict[str, Any]) -> Loaded:
    usual = Served(index, model, reference, options)
    usual.warm_up(options["warm_up_budget_s"])
    others: dict[str, Served] = {}
    for name, other in list(model.others.items())[: SIGNATURES_MAX - 1]:
        others[name] = Served(index + len(others) + 1, other, reference, options)
        others[name].warm_up(OTHERS_BUDGET_S / len(model.others))
    return Loaded(usual, others)
