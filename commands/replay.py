"""`log replay`: logged inputs through another version of their model, in worker processes of their own.

Owns which version, in which batches, and what counts as failing. What is equal is for `commands.comparison` to say,
which rows there are for `commands.replay_rows`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from batching.errors import ItemFailed, StartupFailed
from commands import exits, terminal
from commands.comparison import Change, compare
from commands.embedding import OPTIONS
from commands.log_records import Damage
from commands.replay_report import Failure, Result, show, to_json
from commands.replay_rows import LoggedRow, Skipped, chosen, from_database, from_folder, instance_of, outputs_of
from front.refusals import code_of
from front.settings import Settings
from models.contract import Contract
from models.errors import LoadError, TooLarge
from models.narrowing import is_classifier
from models.repository import VERSION, ModelReference, find, single

BATCH_ROWS = 256
BATCH_BYTES = 4 << 20  # of inputs
ANSWER_S = 60.0  # for one batch
RECOVERY_S = 120.0  # for a worker that has to be replaced
RECOVERY_LOOK_S = 0.1
# A pixel as JSON, against the bytes of a compressed picture.
PIXEL_BYTES = 20


class Server(Protocol):
    """What is needed of an InferenceServer."""

    def predict(self, model: str, body: dict[str, Any], version: str | None = None) -> Any: ...

    def contract(self, model: str, version: str | None = None) -> Contract | None: ...


Start = Callable[..., AbstractContextManager[Server]]


class Row(NamedTuple):
    """A logged row on its way through the model."""

    row: LoggedRow
    instance: Any
    logged: Any


def replay(
    settings: Settings,
    folder: Path | None,
    start: Start,
    *,
    model: str,
    since: datetime,
    against: str,
    version: str | None,
    limit: int | None,
    tolerance: float,
    as_json: bool,
) -> int:
    """Run and compare; 0 when every row is answered and agrees, 1 when not, or when there was no row to compare.

    Raises terminal.Complaint where there is no such version or log, and what the database raises.
    """
    reference = _find(against, model, settings)
    rows = chosen(_rows(settings, folder, model, since), version, limit)
    try:
        with start(**_place(reference, settings)) as server:
            contract = server.contract(reference.name, reference.version)
            if contract is None:
                raise terminal.Complaint(f"{reference.name} version {reference.version} is not ready")
            import_module("front.predictions")  # what `predict` loads when first called is no latency of the model's
            with terminal.bar() as bar:
                result = Runner(server, contract, tolerance).run(_shown(rows, since, limit, bar))
    except StartupFailed as error:
        raise terminal.Complaint(error.reason) from None
    told = to_json(result, model, since, reference.path, contract, tolerance)
    if as_json:
        terminal.say_json(told)
    else:
        show(told)
    return exits.OK if told["same"] else exits.WRONG


class Runner:
    """Rows through one model, in batches, each compared with what was logged."""

    def __init__(self, server: Server, contract: Contract, tolerance: float) -> None:
        self._server = server
        self._contract = contract
        self._is_classifier = is_classifier(contract)
        self._tolerance = tolerance
        self.result = Result()

    def run(self, rows: Iterator[LoggedRow]) -> Result:
        """All of them. Raises terminal.Complaint when the model's workers do not come back."""
        batch: list[Row] = []
        form: Any = None
        size = 0
        for row in rows:
            self.result.read += 1
            self.result.versions[row.version] += 1
            try:
                made = Row(row, instance_of(row, self._contract), outputs_of(row))
            except Skipped as reason:
                self.result.skipped[str(reason)] += 1
                continue
            its_form, its_size = _form(made.instance), _size(row, self._contract)
            if batch and (its_form != form or len(batch) == BATCH_ROWS or size + its_size > BATCH_BYTES):
                self._compare(batch)
                batch, size = [], 0
            batch.append(made)
            form = its_form
            size += its_size
        if batch:
            self._compare(batch)
        return self.result

    def _compare(self, batch: Sequence[Row]) -> None:
        for one, answer in zip(batch, self._answers(batch), strict=True):
            row = one.row
            if isinstance(answer, Failure):
                self.result.failed.setdefault(answer, []).append(row)
                continue
            verdict = compare(one.logged, answer, self._tolerance, is_classifier=self._is_classifier)
            created_at = row.created_at.astimezone(UTC).isoformat()
            change = Change(row.request_id, row.row_number, created_at, verdict, one.logged, answer)
            self.result.summary.add(change)
            if row.queue_ms is not None and row.compute_ms is not None:
                self.result.logged_ms.append(row.queue_ms + row.compute_ms)
                self.result.logged_row_ms.append(row.compute_ms / (row.batch_size or 1))

    def _answers(self, batch: Sequence[Row]) -> list[Any]:
        """An answer or a Failure for each row. What a batch is refused for is found out row by row."""
        body = {"instances": [one.instance for one in batch]}
        started = time.monotonic()
        try:
            answers: list[Any] = self._predict(body)
        except TooLarge as error:
            if len(batch) > 1:
                half = len(batch) // 2
                return self._answers(batch[:half]) + self._answers(batch[half:])
            return [_failure(error)]
        except terminal.Complaint:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a model does to a row is what is to be found out
            if len(batch) > 1:
                return [answer for one in batch for answer in self._answers([one])]
            return [_failure(error)]
        self.result.replayed_ms.extend([(time.monotonic() - started) * 1000 / len(batch)] * len(batch))
        return answers

    def _predict(self, body: dict[str, Any]) -> list[Any]:
        """As Server.predict; waits for a worker that is being replaced. Raises the same, and terminal.Complaint."""
        give_up = time.monotonic() + RECOVERY_S
        while True:
            try:
                return list(self._server.predict(self._contract.name, body, self._contract.version))
            except Exception as error:
                if code_of(error) not in ("NOT_READY", "OVERLOADED"):
                    raise
                if time.monotonic() > give_up:
                    raise terminal.Complaint("the model's worker does not come back") from None
                time.sleep(RECOVERY_LOOK_S)


def _failure(error: Exception) -> Failure:
    return Failure(code_of(error), error.reason if isinstance(error, ItemFailed) else str(error)[:200])


def _form(instance: Any) -> Any:
    """Rows of one body are all values, or all objects with the same keys."""
    return frozenset(instance) if isinstance(instance, dict) else None


def _size(row: LoggedRow, contract: Contract) -> int:
    """About how many bytes a row takes in a body."""
    if contract.image is not None:
        return contract.image.width * contract.image.height * 3 * PIXEL_BYTES
    return len(row.features)


# ---------------------------------------------------------------------------------------------- which rows, which model


def _rows(settings: Settings, folder: Path | None, model: str, since: datetime) -> Iterator[LoggedRow]:
    if settings.database_url is not None:
        return from_database(settings.database_url, model, since)
    if folder is None:
        raise terminal.Complaint("there is no log: neither DATABASE_URL nor PREDICTION_LOG_DIR is set", exits.USAGE)
    if not folder.is_dir():
        raise terminal.Complaint(f"there is no folder {folder}")
    return from_folder(folder, model, since, Damage())


def _shown(rows: Iterator[LoggedRow], since: datetime, limit: int | None, bar: terminal.Bar) -> Iterator[LoggedRow]:
    """The rows as they are, while the bar shows how much of them, or of their time, has passed."""
    now = datetime.now(UTC)
    first: datetime | None = None
    for number, row in enumerate(rows):
        first = first or max(row.created_at, since)
        share = (row.created_at - first) / max(now - first, now.resolution) if limit is None else number / limit
        bar.done(share, f"replaying, {terminal.number(number, 'row')}", 1.0)
        yield row


def _find(against: str, model: str, settings: Settings) -> ModelReference:
    """The version meant. Raises terminal.Complaint."""
    try:
        if VERSION.fullmatch(against):
            where = "MODEL_DIR or MODEL_PATH"
            found = find(settings.model_path, settings.model_dir, allow_h5=settings.allow_h5)
            meant = [one for one in found if one.name == model and one.version == against]
            known = ", ".join(one.version for one in found if one.name == model) or "none"
            problem = f"model {model} has no version {against} in {where}; versions there: {known}"
        else:
            found = single(Path(against), allow_h5=settings.allow_h5)
            names = {one.name for one in found}
            meant = [one for one in found if one.name == model or len(names) == 1]
            problem = f"{against} holds several models, none of the name {model}: {', '.join(sorted(names))}"
    except LoadError as error:
        raise terminal.Complaint(error.reason) from None
    if not meant:
        raise terminal.Complaint(problem, exits.USAGE)
    served = [one for one in meant if one.refusal is None]
    if not served:
        raise terminal.Complaint(f"{meant[-1].name} version {meant[-1].version} cannot be served: {meant[-1].refusal}")
    return max(served, key=lambda one: int(one.version))


def _place(reference: ModelReference, settings: Settings) -> dict[str, Any]:
    """Settings of a server for this version, alone where it can be named alone; of all that is served otherwise."""
    own = {"model_dir": settings.model_dir, "version_policy": "all"}
    options = {**OPTIONS, **own, "predict_timeout_ms": ANSWER_S * 1000, "max_json_bytes": 64 << 20}
    path = Path(reference.path)
    for place in (path, path.parent):
        if single(place, allow_h5=settings.allow_h5) == [reference]:
            return {**options, "models": place}
    return {**options, "model_path": settings.model_path}
