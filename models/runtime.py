"""The way into TensorFlow: `load` gives a model that is ready to run. For a worker's process, which it sets up.

Owns the order of loading: contract file, model, compilation, narrowed contract, further signatures. Importing this
module is cheap; TensorFlow comes with the first `load`, and with it models.loading and models.execution, which do the
work.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from models.calibration import PLAIN, Calibration, settled, threads_of
from models.contract import Contract, GraphNames
from models.contract_file import read_contract
from models.errors import LoadError
from models.repository import ModelReference

if TYPE_CHECKING:
    from models.execution import Graph, LoadedModel
    from models.loading import Program

log = logging.getLogger("inference.models")

# Below, a crafted .keras file reads any file or runs code (CVE-2026-1462, CVE-2026-12480).
OLDEST_KERAS = (3, 14, 1)
# Beside the usual one; the list of a model that has more is cut.
MAX_OTHER_SIGNATURES = 15


def load(reference: dict[str, Any], options: dict[str, Any]) -> LoadedModel:
    """The model of a ModelReference (as JSON), compiled and tried, ready for `warm_up` and `run`.

    options: `allow_h5` (bool), `intra_op_threads` (TensorFlow's threads in this process; None for what all its models
    were calibrated with, or TensorFlow's own choice), `calibration_dir`, and `together`: all references of the process.
    Raises LoadError with a reason that is safe to show; the details are logged.
    """
    from models.narrowing import derive_image, narrow

    which = ModelReference.from_json(reference)
    try:
        if which.refusal is not None:
            raise LoadError(which.refusal)
        if which.kind == "h5" and not options.get("allow_h5"):
            raise LoadError("it is in the legacy .h5 format, which is served only where that is allowed")
        user = {} if which.contract_path is None else read_contract(which.contract_path)
        signature = user.pop("signature", None)  # which of a SavedModel's, so it is not for the contract
        if not isinstance(signature, str | None):
            raise LoadError("contract.json: signature must be the name of one of the model's")
        import_tensorflow()
        calibration = _calibration(which, options)
        from models import execution

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            program = _program(which, signature)
            graph = execution.Graph(program)
            contract = narrow(_contract(which, graph), user)
            others = _others(which, program, contract)
        for warning in caught:
            log.info("%s version %s: %s", which.name, which.version, warning.message)
        if contract.image is None:
            contract = replace(contract, image=derive_image(contract))
        model = execution.LoadedModel(graph, contract, others)
        if contract.examples or which.rehearsal_path is not None:
            _rehearse(which, model, contract)
        model.adopt(calibration)
        return model
    except LoadError as error:
        log.warning("%s version %s cannot be served: %s", which.name, which.version, error.reason)
        raise


def _rehearse(which: ModelReference, model: LoadedModel, contract: Contract) -> None:
    """Imported only here: all that a front needs to read requests comes with it, 0.1 s that a worker seldom needs."""
    from models.rehearsal import rehearse, replay

    rehearse(model, contract)
    if which.rehearsal_path is not None:
        replay(model, contract, Path(which.rehearsal_path))


def _contract(which: ModelReference, graph: Graph) -> Contract:
    """What the model itself says, as yet without the user's word."""
    signature = graph.program.signature
    return Contract(
        which.name,
        which.version,
        graph.inputs,
        graph.outputs,
        signature=signature.name,
        aliases=signature.aliases,
        method=signature.method,
        graph_names=GraphNames(
            tuple(signature.inputs[one.name] for one in graph.inputs if signature.inputs),
            tuple(signature.outputs[one.name] for one in graph.outputs if signature.outputs),
        ),
    )


def _others(which: ModelReference, program: Program, usual: Contract) -> dict[str, LoadedModel]:
    """The model's further signatures. One that cannot be served is left out: the model can do without it."""
    from models import execution
    from models.narrowing import narrow_other

    found = {}
    for name in list(program.others)[:MAX_OTHER_SIGNATURES]:
        try:
            graph = execution.Graph(program.others[name]())
            found[name] = execution.LoadedModel(graph, narrow_other(_contract(which, graph), usual))
        except LoadError as error:
            log.warning("%s version %s: signature %s is left out: %s", which.name, which.version, name, error.reason)
        except Exception:
            log.exception("%s version %s: signature %s is left out", which.name, which.version, name)
    if left := ", ".join(list(program.others)[MAX_OTHER_SIGNATURES:]):
        log.warning("%s version %s: too many signatures, left out: %s", which.name, which.version, left[:500])
    return found


def _calibration(which: ModelReference, options: dict[str, Any]) -> Calibration | None:
    """What was measured of it, as far as it holds with the threads that this process has, which the first one sets."""
    import tensorflow as tf

    threading = tf.config.threading
    folder = options.get("calibration_dir")
    wanted = options.get("intra_op_threads")
    if wanted is None:
        together = map(ModelReference.from_json, options.get("together", ()))
        wanted = threads_of([_settled(one, folder) for one in together if one.refusal is None])
    if wanted is not None:
        threading.set_intra_op_parallelism_threads(wanted)
        threading.set_inter_op_parallelism_threads(wanted)
    found = _settled(which, folder)
    threads = threading.get_intra_op_parallelism_threads() or None
    if found is None or found.threads == threads:
        return found
    log.info("%s version %s was calibrated with other threads than it has", which.name, which.version)
    return replace(found, call=PLAIN, sizes=(), threads=threads, gain=1.0)


@cache
def _settled(which: ModelReference, folder: str | None) -> Calibration | None:
    """What was measured before this process asked first: it sets threads once, so nothing may change under it."""
    import tensorflow as tf

    return settled(which, folder, tf.__version__)


def import_tensorflow() -> None:
    """Import TensorFlow and Keras, on the CPU and without their chatter unless the environment says otherwise.

    Raises LoadError when they cannot be imported or are not safe to use.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    _name_a_temporary_folder()
    try:
        with _quiet_stderr(), _uncollected():
            import keras
            import tensorflow as tf  # noqa: F401 - so that it is there, quietly
    except ImportError as error:
        log.exception("TensorFlow cannot be imported")
        raise LoadError("TensorFlow or Keras is not installed, or is damaged") from error
    from models.loading import version_of

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if version_of(keras.__version__) < OLDEST_KERAS:
        oldest = ".".join(map(str, OLDEST_KERAS))
        raise LoadError(f"Keras {keras.__version__} is not safe to load models with: {oldest} or newer is needed")


def _name_a_temporary_folder() -> None:
    """Importing TensorFlow asks for one, though neither that nor loading a model writes to it: it need not exist."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = os.sep


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage is collected meanwhile, and what there is then is for ever, so that no later collection looks at it.

    TensorFlow's import leaves some 270,000 objects and next to no garbage: that took 0.6 s of 2.7, and each full
    collection afterwards 0.2 s.
    """
    is_new, was_on = "tensorflow" not in sys.modules, gc.isenabled()
    if is_new:
        gc.disable()
    try:
        yield
    finally:
        if is_new:
            gc.freeze()
        if was_on:
            gc.enable()


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep from the terminal what is written to file descriptor 2; show it after all if the block raises.

    Importing TensorFlow writes several lines from C++, before there is any way to ask it not to.
    """
    with _held() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _held() -> IO[bytes]:
    """A file without a name; where the system can, without a disk, as there may be none that can be written."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()


def _program(which: ModelReference, signature: Any) -> Any:
    """The loaded model. What Keras and TensorFlow say against it becomes a reason."""
    from models import loading

    try:
        return loading.load_program(Path(which.path), which.kind, signature)
    except LoadError:
        raise
    except Exception as error:
        log.error("%s version %s: %s: %s", which.name, which.version, type(error).__name__, str(error)[:2000])  # noqa: TRY400
        log.debug("the whole of it", exc_info=True)
        raise LoadError(loading.explain(error, Path(which.path))) from None
