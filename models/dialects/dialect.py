"""What a dialect is: the names that each module beside this one has, and the shapes that pass through them.

Owns the agreement, and no language. A dialect knows nothing of HTTP servers, processes or batches: it is handed bytes,
a compiled contract and the state of versions, and hands back rows or a finished body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from models.contract import Contract
from models.errors import BadInput
from models.schema import Compiled
from models.tensors import Array, Item

OPEN, PREDICT, ADMIN = "open", "predict", "admin"

Outputs = Sequence[Sequence[Array]]
"""For each item its outputs in the contract's order, each of shape (rows of the item, *shape of one row)."""


class Route(NamedTuple):
    """Where a dialect listens.

    template: the path; {model}, {version} (digits) and {label} each stand for a part without "/" and ":". It is also
        the route's name in metrics and the log. action: what is asked there, in the dialect's own words; one whose
        route has INFERS is answered by a model. key: who may ask.
    """

    verb: str
    template: str
    action: str
    infers: bool = False
    key: str = PREDICT


def nothing(name: str) -> None:
    """No header, no query."""


class Call(NamedTuple):
    """A request to a model, as it arrived.

    body: without its Content-Encoding. header: a header's value by its lower-case name, None where there is none;
    query: the same of what follows the path. max_json_bytes, max_rows, max_image_pixels: more of any is refused.
    """

    action: str
    body: bytes
    header: Callable[[str], str | None]
    max_json_bytes: int
    max_rows: int
    max_image_pixels: int = 0
    query: Callable[[str], str | None] = nothing

    def most_rows(self, contract: Contract) -> int:
        """How many rows a request to this model may have: what the server takes, or less where the contract says so."""
        return min(self.max_rows, contract.max_rows or self.max_rows)


@dataclass(slots=True, eq=False)
class Request:
    """Rows to be computed, and how to put the answers back. Made once and not changed (frozen, it takes 1 us to make).

    items: rows of one shape each; together every row of the request once.
    count: how many rows there are. many: they came as a list, so the answer is a list too.
    value_key: the key of the value in each row, None where the row is the value or has several.
    pictures: as they came, still encoded, where the rows are pictures.
    signature: which of the version's it is for, None for the usual one.
    timeout_s, priority: as the request asks in its body; None and 0 where it does not. 1 is the highest priority.
    form: whatever else the dialect's `render` needs of the request.
    """

    items: tuple[Item, ...]
    count: int
    many: bool
    value_key: str | None = None
    pictures: Sequence[bytes] = ()
    signature: str | None = None
    timeout_s: float | None = None
    priority: int = 0
    form: Any = None


class Rendered(NamedTuple):
    """An answer's body, with whatever headers the dialect adds to it."""

    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    status: int = 200


class Version(Protocol):
    """What is known of one version of one model.

    state: LOADING, READY, FAILED or UNLOADED; reason: why it is not READY, safe to show.
    compiled: of the signature that serves where none is named; None until a worker has reported it.
    signatures: all of them by name, that one too.
    costs: rows (as text) -> seconds of one call, as measured at warm-up.
    calibration: how it is run and why; None where nothing was measured before.
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def compiled(self) -> Compiled | None: ...
    @property
    def signatures(self) -> Mapping[str, Compiled]: ...
    @property
    def costs(self) -> Mapping[str, float]: ...
    @property
    def calibration(self) -> Mapping[str, Any] | None: ...


def usable(version: Version) -> Compiled:
    """The contract of a version that can be asked. Raises BadInput otherwise, which whoever found it has seen to."""
    if version.compiled is None:
        raise BadInput(f"model {version.name} is not loaded")
    return version.compiled


class Counted(NamedTuple):
    """What was counted of one version since the server started, over all processes."""

    answered: int = 0
    failed: int = 0
    answered_s: float = 0.0
    failed_s: float = 0.0
    items: int = 0
    queue_s: float = 0.0
    batches: int = 0
    rows: int = 0
    compute_s: float = 0.0
    last_answer_s: float = 0.0  # seconds since 1970; 0 where there was none


class Asked(NamedTuple):
    """A question that no model is needed for.

    version: the one that was asked for, or the one that serves where none was named; None where the question is about
        the server, or `found` says why there is none.
    versions: those the question is about, newest first: of the model named, or of all models by name.
    labels: of the model named: label -> version. given: version or label as it stood in the path, None without.
    is_ready: whether traffic is welcome. body: as it came.
    counted: what was counted of a version. base_url: where the caller reaches us. default: the model that serves where
    none is named, None where there is no such one.
    """

    action: str
    verb: str
    path: str
    model: str | None
    given: str | None
    version: Version | None
    versions: Sequence[Version]
    labels: Mapping[str, str]
    is_ready: bool
    server: str
    body: bytes
    counted: Callable[[Version], Counted]
    base_url: str = ""
    default: str | None = None


class Fault(NamedTuple):
    """A refusal on its way to the caller.

    code: of the one table of errors. message: in the words of whoever refused, safe to show; for a dialect's own
    refusals (BadInput, Unimplemented raised by `parse`) exactly what its `parse` said.
    model, given: as in Asked, where the refusal is about one. reason: of a PREDICT_FAILED.
    pointer, expected, sample: of a BadInput, where they are known.
    """

    code: str
    message: str
    status: int
    verb: str = ""
    path: str = ""
    model: str | None = None
    given: str | None = None
    reason: str | None = None
    request_id: str = ""
    pointer: str | None = None
    expected: str | None = None
    sample: Any = None


class Dialect(Protocol):
    """The names of a dialect's module.

    NAME: in the prediction log. PREFIX: of all its paths, "" where it shares them; whatever begins so is its own, and
    what no route takes it refuses itself (`refuse` with NOT_FOUND or METHOD_NOT_ALLOWED).
    """

    NAME: str
    PREFIX: str
    ROUTES: tuple[Route, ...]

    def parse(self, version: Version, call: Call) -> Request:
        """The rows that a call asks about, of a version that has been compiled.

        Raises BadInput, TooLarge, UnsupportedMedia or Unimplemented.
        """

    def render(self, compiled: Compiled, request: Request, outputs: Outputs) -> Rendered:
        """The answer to a request; compiled: of the signature it is for.

        Raises BadOutput, and BadInput for a request that these outputs cannot answer.
        """

    def describe(self, asked: Asked) -> Rendered:
        """The answer to a question. Raises as `parse`."""

    def refuse(self, fault: Fault) -> Rendered:
        """The dialect's own body and status of a refusal."""
