"""FastAPI under uvicorn. A batcher in the event loop: what came while the model was busy is its next batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from peers.model import FEATURES, MAX_BATCH, PICTURES, Model, decode

DECODERS = 2


class Batcher:
    """Small models are called in the loop itself, as a thread costs more than they do; large ones in a thread."""

    def __init__(self) -> None:
        self._model = Model()
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[tuple[Any, asyncio.Future[Any]]] = []
        self._busy = False

    def predict(self, row: Any) -> asyncio.Future[Any]:
        """What the model will have said of the row."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((row, future))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._begin)  # after the other requests that this turn of the loop reads
        return future

    def _begin(self) -> None:
        taken, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        rows = [row for row, _ in taken]
        loop = asyncio.get_running_loop()
        if PICTURES:
            computed = loop.run_in_executor(self._thread, self._model.predict, rows)
            computed.add_done_callback(lambda done: self._end(taken, done.result()))
        else:
            self._end(taken, self._model.predict(rows))

    def _end(self, taken: list[tuple[Any, asyncio.Future[Any]]], answers: list[Any]) -> None:
        for (_, future), answer in zip(taken, answers, strict=True):
            if not future.done():  # its client may have gone
                future.set_result(answer)
        self._busy = bool(self._waiting)
        if self._busy:
            asyncio.get_running_loop().call_soon(self._begin)


class Numbers(BaseModel):
    """A row."""

    features: Annotated[list[float], Field(min_length=FEATURES, max_length=FEATURES)]


class Picture(BaseModel):
    """A base64 JPEG."""

    image: str


class Answer(BaseModel):
    """What the model says."""

    prediction: float


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The model is loaded before anybody is served."""
    app.state.batcher, app.state.decoders = Batcher(), ThreadPoolExecutor(DECODERS)
    yield


app = FastAPI(lifespan=lifespan, openapi_url=None)

if PICTURES:

    @app.post("/predict")
    async def classify(request: Picture) -> Answer:
        """Decoded in threads, computed in batches."""
        loop = asyncio.get_running_loop()
        try:
            pixels = await loop.run_in_executor(app.state.decoders, decode, request.image)
        except (ValueError, OSError):
            raise HTTPException(422, "no picture") from None
        return Answer(prediction=await app.state.batcher.predict(pixels))

else:

    @app.post("/predict")
    async def predict(request: Numbers) -> Answer:
        """One row."""
        return Answer(prediction=await app.state.batcher.predict(request.features))
