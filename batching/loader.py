"""What a worker holds: every model it was told to load, warmed up, and what was wrong with the others.

What the models are is the loader's affair: `module:function`, called as `load(reference, options)`; see LoadedModel.
"""

from __future__ import annotations

import gc
import importlib
import logging
from collections.abc import Sequence
from typing import Any

from batching.batch import Served

log = logging.getLogger("inference.worker")

# A model call is stuck when it takes so many times the slowest one at warm-up, unless the operator says how long.
SLOW_CALLS = 10


def batch_limit_s(options: dict[str, Any], served: Sequence[Served]) -> float:
    """Seconds that a model call may take before this process is thought stuck."""
    if options["batch_limit_ms"] is not None:
        return float(options["batch_limit_ms"]) / 1000
    slowest_s = max((seconds for one in served for seconds in one.costs.values()), default=0.0)
    return max(float(options["predict_timeout_ms"]) / 1000, SLOW_CALLS * slowest_s)


def load_all(hello: dict[str, Any]) -> tuple[list[Served], list[dict[str, str]]]:
    """(what can be served, what cannot and why). One bad model never keeps the others from serving."""
    options = hello["options"]
    module, function = hello["loader"].split(":")
    load = getattr(importlib.import_module(module), function)
    served: list[Served] = []
    failures: list[dict[str, str]] = []
    # The index is the place in the references, so that it means the same in every worker, whatever that could load.
    for index, reference in enumerate(hello["models"]):
        try:
            one = Served(index, load(reference, options), reference, options)
            one.warm_up(options["warm_up_budget_s"])
        except Exception as error:
            reason = getattr(error, "reason", None)
            if not isinstance(reason, str):  # some foreign errors have a reason of another kind
                log.exception("%s version %s cannot be loaded", reference["name"], reference["version"])
                reason = "loading failed; the server's log has the details"
            failures.append({"name": reference["name"], "version": reference["version"], "reason": reason})
        else:
            served.append(one)
    # TensorFlow leaves some 276,000 objects: one full collection would stop everything for 0.2 s.
    gc.collect()
    gc.freeze()
    return served, failures
