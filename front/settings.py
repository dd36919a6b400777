"""Every setting, one line each: what the environment, the command line, `.env.example` and the README's table show."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any


def _setting(default: Any, help: str, why: str = "", *, choices: tuple[str, ...] = (), secret: bool = False) -> Any:
    """secret: never on a command line, which every user of the machine can read, nor in a repr."""
    return field(
        default=default, repr=not secret, metadata={"help": help, "why": why, "choices": choices, "secret": secret}
    )


@dataclass(frozen=True)
class Settings:
    """One line a setting: default, meaning, and why this default. The environment has them in capitals, the command
    line with dashes; `.env.example` and the README's table are held to this by a test.
    """

    model_path: str | None = _setting(None, "the one model to serve: a file, a SavedModel, or a folder of versions")
    model_dir: str | None = _setting(
        None, "a folder of models to serve", "unset: models/saved, and where that is empty models/dummy_model.keras"
    )
    version_policy: str = _setting(
        "latest:1",
        "which versions of a model are served: latest:N, all, or specific:1,3; a model's versions.json goes before",
        "as TensorFlow Serving; those with a label or a share of the traffic are served too",
    )
    reload_settle_s: float = _setting(
        1.0,
        "how long a changed model must have rested before it is loaded; 0: only when told to (reload, SIGHUP, /v2)",
        "a copy that is still being made changes every moment",
    )
    rollback_s: float = _setting(
        60.0,
        "how long the workers before a reload are kept, so that going back to them takes no time; 0: not at all",
        "they cost their memory",
    )
    reload_replay: int = _setting(
        0, "of a model, so many logged requests that a new version must be able to answer before it serves"
    )
    keep_dir: str | None = _setting(
        None,
        "where the files of what is served are kept (hard links, or copies of what is small), should they be deleted",
        "unset: a hidden folder beside the models; without one a crash after a deletion cannot be mended",
    )
    default_model: str | None = _setting(None, "the model that /predict without a name means", "unset: the only one")
    allow_h5: bool = _setting(False, "also load .h5 files", "the format is older and less safe than .keras")
    host: str = _setting("127.0.0.1", "the address to listen on", "nobody else's machine, unless you say so")
    port: int = _setting(8080, "the port to listen on; 0 takes a free one and prints it")
    fronts: int | None = _setting(
        None, "HTTP processes, or auto", "unset: auto, half of the cores, at least 1 and at most 4 for each worker"
    )
    workers: int = _setting(1, "processes with the models", "TensorFlow uses all cores already; each costs its memory")
    batch_max_size: int = _setting(1024, "rows in one batch at the most", "only as many as warm-up shows to pay")
    batch_max_wait_ms: float = _setting(
        0.0,
        "how long the first row of a batch waits for others",
        "batches form while the model is busy; a lone request would pay",
    )
    predict_timeout_ms: float = _setting(2000.0, "from a request's arrival to its answer; a client may ask for less")
    batch_limit_ms: float | None = _setting(
        None,
        "how long a model may take for one batch before its worker is thought stuck and replaced",
        "unset: PREDICT_TIMEOUT_MS, or 10 times the slowest call at warm-up where that is more",
    )
    standby: int = _setting(
        0, "workers kept warm for the moment another dies, for each group of models", "each costs a worker's memory"
    )
    worker_memory_mb: int | None = _setting(
        None, "resident memory (MiB) beyond which a worker is replaced, without a failed request", "unset: no limit"
    )
    quarantine_s: float = _setting(
        60.0, "how long an input that killed a worker twice, alone the second time, is refused unseen"
    )
    cancel_on_half_close: bool = _setting(
        True, "drop what is still queued of a client that has finished sending; what computes is still answered"
    )
    max_connections: int = _setting(
        10_000,
        "open connections of one front; beyond it the longest idle are closed",
        "fewer where descriptors are few",
    )
    header_timeout_s: float = _setting(10.0, "from a request's first byte to the end of its header")
    body_timeout_s: float = _setting(30.0, "from there to the end of its body, or as long as 1 KiB/s comes in")
    allowed_hosts: str | None = _setting(
        None,
        "Host names to answer to, with commas between; * for all",
        "unset: on a loopback address its names only, as other names come from web pages; elsewhere all",
    )
    allowed_origins: str | None = _setting(
        None,
        "web origins whose pages may call, with commas between",
        "unset: none; a browser's cross-site call is refused",
    )
    api_key_file: str | None = _setting(
        None, "a file with one key on each line; without one of them no prediction", "unset: no key is asked for"
    )
    admin_key_file: str | None = _setting(
        None, "as API_KEY_FILE, for /metrics and whatever changes the server", "unset: the keys of API_KEY_FILE"
    )
    log_format: str = _setting(
        "auto",
        "text, json, or auto: text on a terminal, else json",
        choices=("auto", "text", "json"),
    )
    max_json_bytes: int = _setting(8 * 1024 * 1024, "the largest JSON body", "8 MiB parse in about 0.1 s")
    max_body_bytes: int = _setting(64 * 1024 * 1024, "the largest body of any kind")
    max_image_pixels: int = _setting(
        25_000_000,
        "the largest picture, width times height",
        "75 MB decoded; WEBP gets a quarter, progressive JPEG two thirds",
    )
    queue_rows: int = _setting(8192, "rows that may wait for one model", "seconds of work, not minutes")
    queue_bytes: int = _setting(256 * 1024 * 1024, "bytes that may wait for one model")
    decode_threads: int | None = _setting(
        None,
        "threads in each front for pictures and large bodies, or auto",
        "unset: auto, a front's share of the cores, from 2 to 8",
    )
    intra_op_threads: int | None = _setting(None, "TensorFlow's threads in one operation", "unset: TensorFlow's choice")
    calibration_dir: str | None = _setting(
        None, "where `check --calibrate` keeps what it has measured", "unset: .cache/calibration beside the server"
    )
    warm_up_budget_s: float = _setting(5.0, "seconds of measuring batch sizes at start, for each model")
    drain_timeout_s: float = _setting(30.0, "how long a stopping server waits for requests in flight")
    worker_socket: str | None = _setting(None, "where `worker` listens and wsgi() connects to", "a path of your choice")
    database_url: str | None = _setting(
        None,
        "the prediction log's database: postgresql+pg8000://user:password@host/name or sqlite:///path",
        "unset: no table; environment only",
        secret=True,
    )
    prediction_log_dir: str | None = _setting(
        None,
        "the prediction log's spool; without DATABASE_URL the log itself, kept by age and size",
        "unset: inference_logs where DATABASE_URL is set, else no log",
    )
    prediction_log_required: bool = _setting(
        False, "answer 503 rather than without a log entry", "serving comes first, and what is dropped is counted"
    )
    prediction_log_sync: str = _setting(
        "interval",
        "when the spool goes to the disk: none, interval (within 0.1 s) or each (before the answer)",
        "every way survives kill -9 of everything; only a power cut can cost 0.1 s of entries",
        choices=("none", "interval", "each"),
    )
    prediction_log_capture: str = _setting(
        "auto",
        "what is kept of inputs: none, hash, auto (JSON; hashes of pictures and large bodies) or full",
        'a contract.json may say otherwise for its model: {"log": {"capture": "none"}}',
        choices=("none", "hash", "auto", "full"),
    )
    prediction_log_sample: float = _setting(1.0, "the share of answered requests that is logged", "all of them")
    prediction_log_refusal_sample: float = _setting(
        0.01, "the share of refused requests (4xx, 503) that is logged", "all are counted; no scanner fills the table"
    )
    prediction_log_value_bytes: int = _setting(
        64 * 1024,
        "the longest input or output kept of one row, in bytes, except where capture is full",
        "a page of numbers",
    )
    prediction_log_max_bytes: int = _setting(
        1024 * 1024 * 1024, "what the spool, or the log without a database, may take of the disk"
    )
    prediction_log_keep_days: float | None = _setting(
        None, "days after which logged rows are deleted", "unset: a table keeps all, a local log what fits"
    )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Each setting from the variable of its name, if that is set and not empty. Raises ValueError naming it."""
        values = {}
        for one in fields(cls):
            text = environ.get(one.name.upper(), "")
            if text:
                values[one.name] = parse_setting(one, text)
        return cls(**values).checked()

    def checked(self) -> Settings:
        """Itself; raises ValueError for a number that makes no sense."""
        for name in ("fronts", "workers", "batch_max_size", "predict_timeout_ms", "max_body_bytes", "max_json_bytes",
                     "max_image_pixels", "queue_rows", "queue_bytes", "decode_threads", "drain_timeout_s",
                     "prediction_log_value_bytes", "prediction_log_max_bytes"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name.upper()} must be above 0")
        if self.batch_max_wait_ms < 0 or not 0 <= self.port <= 65535:
            raise ValueError("BATCH_MAX_WAIT_MS must not be negative, and PORT must be from 0 to 65535")
        for name in ("prediction_log_sample", "prediction_log_refusal_sample"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name.upper()} must be from 0 to 1")
        if self.prediction_log_keep_days is not None and self.prediction_log_keep_days <= 0:
            raise ValueError("PREDICTION_LOG_KEEP_DAYS must be above 0")
        for one in fields(self):
            choices = one.metadata["choices"]
            if choices and getattr(self, one.name) not in choices:
                raise ValueError(f"{one.name.upper()} must be one of {', '.join(choices)}")
        return self


# Numbers that front.sizing reckons where nothing, or auto, is said.
AUTOMATIC = ("fronts", "decode_threads")
SECRETS = frozenset(one.name for one in fields(Settings) if one.metadata["secret"])


def parse_setting(one: Field[Any], text: str) -> Any:
    """The value of a setting from text, by its type. Raises ValueError with the setting's name."""
    kind = str(one.type).split(" |")[0]
    if kind == "bool":
        if text.lower() not in ("0", "1", "true", "false", "yes", "no"):
            raise ValueError(f"{one.name.upper()} must be true or false, not {text[:40]!r}")
        return text.lower() in ("1", "true", "yes")
    if kind == "str":
        return text
    if text == "auto" and one.name in AUTOMATIC:
        return None
    try:
        number = int(text) if kind == "int" else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{one.name.upper()} must be a number, not {text[:40]!r}")
    return number
