"""`inference_server.py score`: a file of rows through a model, each answered once, whatever comes in between.

Owns the command: its words, how much is under way at a time, when it is noted how far it has come. Memory stays the
same whatever the file's size.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from batching.errors import BatchingError, StartupFailed
from commands import exits, terminal
from commands.embedding import OPTIONS, newest
from commands.parsing import Parser
from commands.parsing import parser as parser_of
from commands.score_form import Csv, form_of
from commands.score_journal import Journal, Mark
from commands.score_rows import Rows, Scored
from commands.score_source import Block, Source, open_source
from front.bulk import Bulk
from models.contract import Contract
from models.repository import ModelReference

# Blocks on their way at once: one is computed while others are parsed, written or wait.
UNDER_WAY = 4
BLOCK_ROWS_MAX, BLOCK_BYTES_MAX, BLOCK_S = 8192, 4 << 20, 0.5
VALUE_BYTES = 8
# How much work a crash can cost.
KEEP_EVERY_S = 1.0


def parser() -> Parser:
    """What it takes."""
    made = parser_of(
        "score",
        "Send the rows of a file through a model and write the answers to another, in the same order. Rows that cannot "
        "be answered are set aside in OUT.errors.jsonl with their numbers, and the rest goes on. Interrupted in any "
        "way, the same command goes on where it was, and each row is written once.",
        (
            "score models/saved/dummy rows.csv -o answers.csv",
            "score model.keras bodies.jsonl -o answers.jsonl",
            "score model.keras features.npy -o answers.npy --restart",
        ),
        codes=(exits.OK, exits.WRONG, exits.USAGE, exits.NO_MODEL, exits.INTERRUPTED),
    )
    made.add_argument("model", metavar="MODEL", help="a model's file or folder; its newest version answers")
    made.add_argument(
        "input",
        metavar="INPUT",
        type=Path,
        help=".csv with a header (columns by name), .jsonl (a request's body on each line) or .npy (rows first)",
    )
    made.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help=".csv, .jsonl or .npy")
    made.add_argument("--only-outputs", action="store_true", help="leave the input's columns out of a .csv")
    made.add_argument("--restart", action="store_true", help="begin anew, over whatever is there")
    made.add_argument("--json", action="store_true", help="print what came of it as JSON")
    return made


def main(arguments: Sequence[str], server: Callable[..., Any]) -> int:
    """Score, and say what came of it; the exit code. server: InferenceServer."""
    given = parser().parse_args(list(arguments))
    started = time.monotonic()
    try:
        reference = newest(given.model)
        if not given.input.is_file():
            raise terminal.Complaint(f"there is no file {given.input}", exits.USAGE)
        with ExitStack() as stack:
            with terminal.waiting(f"loading {reference.name}"):
                running = stack.enter_context(server(given.model, **OPTIONS))
            told = _score(given, reference, running.bulk(reference.name, reference.version))
    except (terminal.Complaint, StartupFailed) as error:
        terminal.complain(error.reason if isinstance(error, StartupFailed) else str(error))
        return error.code if isinstance(error, terminal.Complaint) else exits.NO_MODEL
    except BatchingError as error:
        terminal.complain(f"the model's workers do not come back: {error}; the same command goes on from here")
        return exits.WRONG
    except OSError as error:
        terminal.complain(f"{error.filename or given.output}: {error.strerror}; the same command goes on from here")
        return exits.WRONG
    except KeyboardInterrupt:
        terminal.complain("stopped; the same command goes on from here")
        return exits.INTERRUPTED
    _tell({**told, "seconds": round(time.monotonic() - started, 3)}, as_json=given.json)
    return exits.WRONG if told["set_aside"] else exits.OK


def _score(given: argparse.Namespace, reference: ModelReference, bulk: Bulk) -> dict[str, Any]:
    source = open_source(given.input, bulk.contract)
    kept = source.header is not None and not given.only_outputs
    form = form_of(given.output, bulk.contract, source.header if kept else None)
    made_of = _made_of(given, reference)
    with closing(Journal(given.output, made_of, form.beginning, restart=given.restart)) as journal:
        if journal.mark.rows and not given.json:
            terminal.complain(f"{terminal.number(journal.mark.rows, 'row')} of {given.output} are done; going on")
        rows = Rows(source, bulk, form, keeps=kept and isinstance(form, Csv))
        begun = time.monotonic(), journal.mark.rows
        if not journal.mark.whole:
            run(source, rows.score, journal, rows_max(bulk), bulk.stop)
        seconds = time.monotonic() - begun[0]
        mark = journal.mark
        journal.finish(form.finished(mark.written))
    return {
        "output": str(given.output),
        "rows": mark.rows,
        "written": mark.written,
        "set_aside": mark.aside,
        "errors": str(journal.errors) if mark.aside else None,
        "rows_this_time": mark.rows - begun[1],
        "rows_per_s": round((mark.rows - begun[1]) / seconds) if seconds > 0 else None,
    }


def run(
    source: Source, score: Callable[[Block], Scored], journal: Journal, most: int, stop: Callable[[], None]
) -> None:
    """All blocks from the journal's mark on. stop: called before whoever is under way is waited for in vain."""
    begin = time.monotonic()
    start = journal.mark
    kept_at = begin
    mark = start
    pool = ThreadPoolExecutor(UNDER_WAY, "score")
    try:
        with terminal.progress() as progress:
            for scored in _in_order(pool, score, source.blocks(start.end, start.rows + 1, most)):
                journal.write(scored.output, scored.errors)
                mark = _after(mark, scored)
                now = time.monotonic()
                if now - kept_at >= KEEP_EVERY_S:
                    journal.keep(mark)
                    kept_at = time.monotonic()
                progress.done(mark.end, _words(mark, start, now - begin), source.size)
        journal.keep(mark)
    except BaseException:
        stop()
        journal.keep(mark)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(pool: ThreadPoolExecutor, score: Callable[[Block], Scored], blocks: Iterator[Block]) -> Iterator[Scored]:
    under_way: deque[Future[Scored]] = deque()
    for block in blocks:
        under_way.append(pool.submit(score, block))
        if len(under_way) > UNDER_WAY:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _after(mark: Mark, scored: Scored) -> Mark:
    return replace(
        mark,
        rows=mark.rows + scored.block.rows,
        end=scored.block.end,
        written=mark.written + scored.written,
        aside=mark.aside + scored.aside,
        output_bytes=mark.output_bytes + len(scored.output),
        errors_bytes=mark.errors_bytes + len(scored.errors),
    )


def rows_max(bulk: Bulk) -> int:
    """Rows in a block: none may take long, nor much memory."""
    contract: Contract = bulk.contract
    row_bytes = sum(_values(tensor.shape) * VALUE_BYTES for tensor in (*contract.inputs, *contract.outputs))
    rates = [int(rows) / seconds for rows, seconds in bulk.entry.costs.items() if seconds > 0]
    quick = BLOCK_S * max(rates) if rates else BLOCK_ROWS_MAX
    return max(int(min(BLOCK_ROWS_MAX, BLOCK_BYTES_MAX / row_bytes, quick)), 1)


def _values(shape: Sequence[int | None]) -> int:
    count = 1
    for size in shape:
        count *= size or 1
    return max(count, 1)


def _made_of(given: argparse.Namespace, reference: ModelReference) -> dict[str, Any]:
    """What must not change between two runs of which one goes on with the other's work."""
    status = given.input.stat()
    return {
        "the input": [str(given.input.resolve()), status.st_size, status.st_mtime_ns],
        "the model": [reference.name, reference.version, reference.digest],
        "the option --only-outputs": given.only_outputs,
    }


def _words(mark: Mark, start: Mark, seconds: float) -> str:
    rate = (mark.rows - start.rows) / max(seconds, 1e-9)
    aside = f", {mark.aside:,} set aside" if mark.aside else ""
    return f"{terminal.number(mark.rows, 'row')}, {rate:,.0f} rows/s{aside}"


def _tell(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        terminal.say_json(told)
        return
    rate = f" at {told['rows_per_s']:,} rows/s" if told["rows_per_s"] else ""
    print(f"{terminal.number(told['written'], 'row')} written to {told['output']}{rate}", flush=True)
    if told["set_aside"]:
        terminal.complain(f"{terminal.number(told['set_aside'], 'row')} set aside in {told['errors']}")
