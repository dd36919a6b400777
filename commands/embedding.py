"""A model of the operator's in a server of the command's own, for as long as the command needs it.

Owns which settings such a server has. Which verb wants what of it is the verb's affair.
"""

from __future__ import annotations

from typing import Any

from commands import exits, terminal
from front.settings import Settings
from models.errors import LoadError
from models.repository import ModelReference, at

# Nobody else is served: a file's rows may wait for as long as they must, and as many as memory holds.
OPTIONS: dict[str, Any] = {
    "model_dir": None,
    "default_model": None,
    "host": "127.0.0.1",
    "fronts": 1,
    "predict_timeout_ms": 120_000.0,
    "queue_rows": 1 << 20,
    "queue_bytes": 1 << 30,
    "worker_socket": None,
    "version_policy": "latest:1",
    "reload_settle_s": 0.0,
    "reload_replay": 0,
    "standby": 0,
    "allowed_hosts": None,
    "api_key_file": None,
    "admin_key_file": None,
    "database_url": None,
    "prediction_log_dir": None,
    "prediction_log_required": False,
}


def newest(path: str) -> ModelReference:
    """The version that serves of the one model there. Raises terminal.Complaint."""
    try:
        settings = Settings.from_environment()
        found = at(path, None, allow_h5=settings.allow_h5).all()
    except ValueError as error:
        raise terminal.Complaint(str(error), exits.USAGE) from None
    except LoadError as error:
        raise terminal.Complaint(error.reason, exits.NO_MODEL) from None
    names = sorted({one.name for one in found})
    if len(names) > 1:
        shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise terminal.Complaint(f"{path} holds several models, name one of them as {path}/NAME: {shown}", exits.USAGE)
    served = [one for one in found if one.refusal is None]
    if not served:
        raise terminal.Complaint(f"{names[0]} cannot be served: {found[-1].refusal}", exits.NO_MODEL)
    return max(served, key=lambda one: int(one.version))
