"""The way into TensorFlow: `load` gives a model that is ready to run. For a worker's process, which it sets up.

Owns the order of loading: contract file, model, compilation, narrowed contract, further signatures. Importing this
module is cheap; TensorFlow comes with the first `load`, and with it models.loading and models.execution, which do the
work.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

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

    options: `allow_h5` (bool), `intra_op_threads` (TensorFlow's threads in this process, None for its own choice).
    Raises LoadError with a reason that is safe to show; the details are logged.
    """
    from models.narrowing import derive_image, narrow
    from models.rehearsal import rehearse, replay

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
        import_tensorflow(options.get("intra_op_threads"))
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
        rehearse(model, contract)
        if which.rehearsal_path is not None:
            replay(model, contract, Path(which.rehearsal_path))
        return model
    except LoadError as error:
        log.warning("%s version %s cannot be served: %s", which.name, which.version, error.reason)
        raise


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


def import_tensorflow(intra_op_threads: int | None = None) -> None:
    """Import TensorFlow and Keras, on the CPU and without their chatter unless the environment says otherwise.

    intra_op_threads: for this process; only the first call can set it. Raises LoadError when they cannot be imported or
    are not safe to use.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    _name_a_temporary_folder()
    try:
        with _quiet_stderr():
            import keras
            import tensorflow as tf
    except ImportError as error:
        log.exception("TensorFlow cannot be imported")
        raise LoadError("TensorFlow or Keras is not installed, or is damaged") from error
    from models.loading import version_of

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if version_of(keras.__version__) < OLDEST_KERAS:
        oldest = ".".join(map(str, OLDEST_KERAS))
        raise LoadError(f"Keras {keras.__version__} is not safe to load models with: {oldest} or newer is needed")
    if intra_op_threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(intra_op_threads)
        tf.config.threading.set_inter_op_parallelism_threads(intra_op_threads)


def _name_a_temporary_folder() -> None:
    """Importing TensorFlow asks for one, though neither that nor loading a model writes to it: it need not exist."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = os.sep


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
