"""The other servers that the bench knows: what to install for each, how it is started, how it is asked.

Each has a program of its own in this folder, which runs under that server's own interpreter; this file is read by the
bench and needs none of them. All load the same file through peers.model, and each batches by its own means, with what
its documentation says for production. To add one: a program here, and an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Peer:
    """One server. command: what follows its interpreter, with {port} and {folder} (an empty one of its own) in it.

    body, answer: a row of numbers as what it reads, and what it says as a number. The same of a base64 JPEG where
    `picture` is one: it can serve those, and says the class. files: what `folder` has to hold, by name, with {port}.
    """

    name: str
    packages: Sequence[str]
    command: Sequence[str]
    path: str = "/predict"
    body: Callable[[list[float]], Any] = lambda row: {"features": row}
    answer: Callable[[Any], Any] = lambda answer: answer["prediction"]
    picture: Callable[[str], Any] | None = None
    files: tuple[tuple[str, str], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    note: str = ""


def _tensor(row: list[float]) -> Any:
    return {"inputs": [{"name": "features", "shape": [1, len(row)], "datatype": "FP32", "data": row}]}


def _tensor_answer(answer: Any) -> Any:
    return answer["outputs"][0]["data"][0]


def _image(text: str) -> Any:
    return {"image": text}


V2_PATH = "/v2/models/small/infer"
MLSERVER = """\
{"host": "127.0.0.1", "http_port": {port}, "grpc_port": {port+1}, "metrics_endpoint": null, "parallel_workers": 0,
 "debug": false}
"""
MLSERVER_MODEL = """\
{"name": "small", "implementation": "peers.mlserver.Small", "max_batch_size": 64, "max_batch_time": 0.001}
"""

PEERS = (
    Peer(
        "fastapi",
        ("fastapi>=0.115", "uvicorn>=0.30", "uvloop", "httptools", "orjson", "pillow"),
        (
            *("-m", "uvicorn", "peers.fastapi:app", "--host", "127.0.0.1", "--port", "{port}"),
            *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
        ),
        picture=_image,
        note="one process, whose event loop batches what came while the model was busy",
    ),
    Peer(
        "mosec",
        ("mosec>=0.9", "msgspec", "pillow"),
        (
            "-m",
            "peers.mosec",
            "--address",
            "127.0.0.1",
            "--port",
            "{port}",
            "--timeout",
            "60000",
            "--log-level",
            "error",
        ),
        picture=_image,
        note="max_wait_time 1 ms, its least",
    ),
    Peer(
        "mlserver",
        ("mlserver>=1.6",),
        ("-m", "mlserver.cli.main", "start", "{folder}"),
        path=V2_PATH,
        body=_tensor,
        answer=_tensor_answer,
        files=(("settings.json", MLSERVER), ("model-settings.json", MLSERVER_MODEL)),
        note="no worker process, which is faster for a small model; max_batch_time 1 ms",
    ),
    Peer(
        "pytriton",
        ("nvidia-pytriton>=0.7",),
        ("-m", "peers.pytriton", "{port}"),
        path=V2_PATH,
        body=_tensor,
        answer=_tensor_answer,
        note="Triton with its dynamic batcher, no queue delay",
    ),
    Peer(
        "bentoml",
        ("bentoml>=1.4", "pillow"),
        ("-m", "bentoml", "serve", "peers.bentoml:Served", "--host", "127.0.0.1", "--port", "{port}"),
        body=lambda row: {"features": [row]},
        answer=lambda answer: answer[0],
        picture=lambda text: {"image": [text]},
        environment=(("BENTOML_DO_NOT_TRACK", "True"),),
        note="two workers for the small model, one for pictures",
    ),
    Peer(
        "litserve",
        ("litserve>=0.2.10", "pillow"),
        ("-m", "peers.litserve", "{port}"),
        picture=_image,
        note="two API servers, fast queue, batch_timeout 2 ms",
    ),
    Peer(
        "ray",
        ("ray[serve]>=2.40", "uvloop", "orjson"),
        ("-m", "peers.ray", "{port}"),
        environment=(("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")),
        note="one replica, batch_wait_timeout_s 0.005",
    ),
    Peer(
        "service-streamer",
        ("service-streamer>=0.1.2", "flask", "gunicorn", "orjson"),
        ("-m", "peers.service_streamer", "{port}"),
        note="under gunicorn with 64 threads; max_latency 5 ms",
    ),
    Peer(
        "flask",
        ("flask", "gunicorn"),
        (
            *("-m", "gunicorn", "-w", "1", "-k", "gthread", "--threads", "32", "-b", "127.0.0.1:{port}"),
            *("--log-level", "warning", "peers.flask:app"),
        ),
        note="the recipe of many a tutorial: model.predict in the handler; no batching",
    ),
)
BY_NAME = {peer.name: peer for peer in PEERS}
