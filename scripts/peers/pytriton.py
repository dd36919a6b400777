"""Triton through pytriton: its own HTTP and dynamic batcher, the model in Python."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from peers.model import FEATURES, MAX_BATCH, Model


def main(port: int) -> None:
    """Serve until a signal."""
    model = Model()

    @batch
    def infer(features: Any) -> dict[str, Any]:
        return {"prediction": model(features)}

    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=port,
        grpc_address="127.0.0.1",
        grpc_port=port + 1,
        allow_metrics=False,
        http_thread_count=2,
        log_verbose=0,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="small",
            infer_func=infer,
            inputs=[Tensor(name="features", dtype=np.float32, shape=(FEATURES,))],
            outputs=[Tensor(name="prediction", dtype=np.float32, shape=(1,))],
            config=ModelConfig(max_batch_size=MAX_BATCH, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
            strict=False,
        )
        triton.serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
