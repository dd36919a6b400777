"""`inference_server.py bench`: what a model does on this machine, or a server somewhere, under load.

Owns the words and exit codes, and how long each load lasts. The load comes from processes of its own (commands.load);
what it adds up to is commands.bench_windows' affair.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from batching.errors import StartupFailed
from commands import asking, bench_plot, bench_report, exits, terminal
from commands.bench_target import DIALECTS, NATIVE, Server, Target, find, in_base64
from commands.bench_windows import STABLE_WINDOWS, TRIALS_MAX, Level, is_stable, level, split_between
from commands.embedding import OPTIONS
from commands.load import Crew, LoadError, Window, default_processes
from commands.load_job import CONSTANT, POISSON, Job
from commands.parsing import Parser
from commands.parsing import parser as parser_of

CONCURRENCY = "1,4,16,64"
# Of a server of our own: what is not about how fast it is, and would reach others, or keep us out.
ALONE = (
    "host", "allowed_hosts", "api_key_file", "admin_key_file", "default_model", "worker_socket", "database_url",
    "prediction_log_dir", "prediction_log_required",
)  # fmt: skip
CONNECTIONS_MAX, LEVELS_MAX, PROCESSES_MAX = 10_000, 100, 64


class Running(Protocol):
    """What is needed of an InferenceServer."""

    url: str


Start = Callable[..., AbstractContextManager[Running]]


def main(arguments: Sequence[str], server: Start) -> int:
    """Measure, and say what came of it; the exit code. server: the class InferenceServer."""
    given = _parse(arguments)
    try:
        with _there(given.target, server) as url:
            return _measured(given, Server(url, asking.key_of(given.key_file)))
    except terminal.Complaint as error:
        terminal.complain(str(error))
        return error.code
    except LoadError as error:
        terminal.complain(str(error))
        return exits.NOBODY if error.is_nobody else exits.WRONG
    except KeyboardInterrupt:  # before there was anything to measure
        return exits.INTERRUPTED


# -- words -------------------------------------------------------------------------------------------------------------


def parser() -> Parser:
    """The command's options."""
    made = parser_of(
        "bench",
        "Measure a model on this machine, or a server that runs: throughput and latency over load. Each load lasts "
        f"until {STABLE_WINDOWS} windows in a row agree within 10 % in throughput and in latency, at most {TRIALS_MAX} "
        "windows. 1 is also the exit code where requests failed, or where no load became stable.",
        (
            "bench models/saved/digits",
            "bench http://127.0.0.1:8080 --concurrency 1:64:9 --rows 32",
            "bench http://127.0.0.1:8080 --rate 500,1000,2000 --deadline-ms 50",
            "bench http://127.0.0.1:8080 --body photo.jpg --json out.json --plot out.svg",
            "bench http://tfs:8501 --dialect tfs --model half_plus_two",
        ),
        codes=(exits.OK, exits.WRONG, exits.USAGE, exits.NO_MODEL, exits.NOBODY, exits.INTERRUPTED),
        settings="A MODEL is served with the settings of the environment (BATCH_MAX_SIZE), for this command alone: on "
        "127.0.0.1, without keys and without a prediction log.",
    )
    made.add_argument("target", metavar="URL|MODEL", help="a running server (http://host:port), or a model on disk")
    made.add_argument("--model", metavar="NAME", help="which of its models (default: the server's default or only one)")
    made.add_argument(
        "--dialect",
        choices=DIALECTS,
        default=NATIVE,
        help=f"ours, TensorFlow Serving's REST or the Open Inference Protocol (default {NATIVE})",
    )
    made.add_argument("--body", metavar="FILE", type=Path, help="what to send: JSON or a picture (default: a sample)")
    made.add_argument("--rows", metavar="N", type=_whole(1_000_000), help="rows in each request (default 1)")
    made.add_argument("--key-file", metavar="FILE", type=Path, help="a file whose first line is the key to send")
    load = made.add_mutually_exclusive_group()
    load.add_argument(
        "--concurrency",
        metavar="C",
        type=_concurrencies,
        default=_concurrencies(CONCURRENCY),
        help=f"closed loop: requests at once, as 1,4,16 or from:to:step (default {CONCURRENCY})",
    )
    load.add_argument("--rate", metavar="R", type=_rates, help="open loop: requests a second instead, as 500,1000")
    made.add_argument(
        "--distribution",
        choices=(POISSON, CONSTANT),
        default=POISSON,
        help=f"how the requests of a rate are spread (default {POISSON})",
    )
    made.add_argument("--window", metavar="S", type=_seconds, default=1.0, help="seconds of one window (default 1)")
    made.add_argument(
        "--percentile",
        metavar="P",
        type=_share,
        help="the latency that must be stable: this percentile (default: the average)",
    )
    made.add_argument(
        "--deadline-ms",
        metavar="MS",
        type=_positive,
        help="also count what is answered in time; a server of ours is told, and refuses what it could not do in time",
    )
    made.add_argument(
        "--processes",
        metavar="N",
        type=_whole(PROCESSES_MAX),
        help="processes that make the load (default: half of the cores, at most 4)",
    )
    made.add_argument("--json", metavar="FILE", help="write everything there, too; - for stdout, instead of the table")
    made.add_argument("--plot", metavar="FILE.svg", type=Path, help="draw throughput and latency over load")
    return made


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    words = parser()
    given = words.parse_args(list(arguments))
    if given.body is not None and given.rows is not None:
        words.error("--rows is for a sample: a file of --body has the rows that it has")
    if given.target.startswith("https://"):
        words.error("https is not spoken here: measure the server behind the proxy, at its http:// address")
    if "://" in given.target:
        where = urlsplit(given.target)
        if where.scheme != "http" or not where.hostname or where.query or where.fragment:
            words.error(f"{given.target} is no address of a server, such as http://127.0.0.1:8080")
        with suppress(ValueError):
            where.port  # noqa: B018 - it is read here, so that a bad one is heard of
            return given
        words.error(f"{given.target} has no port that is one")
    return given


def _whole(most: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {most}")
        return int(text)

    return whole


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def _seconds(text: str) -> float:
    value = _positive(text)
    if not 0.05 <= value <= 600:
        raise argparse.ArgumentTypeError("a window has 0.05 to 600 seconds")
    return value


def _share(text: str) -> float:
    value = _positive(text)
    if value >= 100:
        raise argparse.ArgumentTypeError("a percentile is below 100")
    return value


def _concurrencies(text: str) -> list[int]:
    whole = _whole(CONNECTIONS_MAX)
    if ":" in text:
        first, last, step = [whole(part) for part in text.split(":")] if text.count(":") == 2 else (0, 0, 0)
        if not first or last < first:
            raise argparse.ArgumentTypeError(f"{text!r} is not from:to:step, as in 1:64:9")
        found = list(range(first, last + 1, step))
    else:
        found = list(dict.fromkeys(whole(part) for part in text.split(",")))
    if len(found) > LEVELS_MAX:
        raise argparse.ArgumentTypeError(f"that are {len(found)} loads, at most {LEVELS_MAX} are taken")
    return found


def _rates(text: str) -> list[float]:
    return list(dict.fromkeys(_positive(part) for part in text.split(",")))


# -- measuring ---------------------------------------------------------------------------------------------------------


@contextmanager
def _there(target: str, server: Start) -> Iterator[str]:
    """The URL of what is measured; a server of our own ends with the block."""
    if "://" in target:
        yield target
        return
    if not Path(target).exists():
        reason = f"there is no model {target}, and a server's address begins with http://"
        raise terminal.Complaint(reason, exits.USAGE)
    try:
        started = server(target, **{name: OPTIONS[name] for name in ALONE})
    except ValueError as error:
        raise terminal.Complaint(str(error), exits.USAGE) from None
    with ExitStack() as stack:
        try:
            with terminal.waiting(f"loading {Path(target).name}"):
                running = stack.enter_context(started)
        except StartupFailed as error:
            raise terminal.Complaint(error.reason, exits.NO_MODEL) from None
        yield running.url


def _measured(given: argparse.Namespace, server: Server) -> int:
    target = find(
        server,
        dialect=given.dialect,
        model=given.model,
        body=given.body,
        rows=given.rows,
        deadline_ms=given.deadline_ms,
    )
    processes = given.processes or default_processes()
    session = Session(given, server, target)
    with Crew(processes) as crew:
        code = session.run(crew)
    _tell(given, target, session.levels, processes)
    if code == exits.INTERRUPTED:
        terminal.complain("interrupted: this is what was measured so far")
    if code != exits.OK:
        return code
    if failed := sum(one.failed + one.failed_before for one in session.levels):
        terminal.complain(f"{terminal.number(failed, 'request')} failed")
        return exits.WRONG
    if not any(one.is_stable for one in session.levels):
        terminal.complain("no load became stable")
        return exits.WRONG
    return exits.OK


@dataclass
class Session:
    """All loads, one after the other. levels: what came of those that are done."""

    given: argparse.Namespace
    server: Server
    target: Target

    def __post_init__(self) -> None:
        self.levels: list[Level] = []
        given = self.given
        self._loads: list[float] = given.concurrency if given.rate is None else given.rate

    def run(self, crew: Crew) -> int:
        """Measure all of them; the exit code. After Ctrl-C what was begun counts as far as it got.

        Raises LoadError where there was no load at all; a later one that cannot be made is told, and ends it.
        """
        windows: list[Window] = []
        with terminal.progress() as bar:
            for number, load in enumerate(self._loads):
                windows = []
                try:
                    stats = self.server.stats(self.target.model)
                    with closing(crew.windows(self._job(load))) as coming:
                        for window in coming:
                            windows.append(window)
                            bar.done(number + len(windows) / TRIALS_MAX, self._words(load, windows), len(self._loads))
                            if len(windows) == TRIALS_MAX or is_stable(windows, self.given.percentile):
                                break
                    self._add(load, windows, stats, is_whole=True)
                except KeyboardInterrupt:
                    if windows:
                        self._add(load, windows, {}, is_whole=False)
                    return exits.INTERRUPTED
                except LoadError as error:
                    if not self.levels:
                        raise
                    terminal.complain(f"{self.target.url} at {load:,g}: {error}")
                    return exits.NOBODY if error.is_nobody else exits.WRONG
        return exits.OK

    def _add(self, load: float, windows: Sequence[Window], stats: dict[str, Any], *, is_whole: bool) -> None:
        after = self.server.stats(self.target.model) if stats else {}
        self.levels.append(
            level(
                windows,
                load=load,
                is_rate=self.given.rate is not None,
                rows=self.target.rows,
                share=self.given.percentile,
                deadline_ms=self.given.deadline_ms,
                stats=split_between(stats, after),
                is_whole=is_whole,
            )
        )

    def _job(self, load: float) -> Job:
        given, target = self.given, self.target
        requests = in_base64(target.requests)
        if given.rate is None:
            return Job(target.family, target.address, requests, given.window, connections=int(load))
        return Job(
            target.family, target.address, requests, given.window, rate=load, distribution=given.distribution, seed=1
        )

    def _words(self, load: float, windows: Sequence[Window]) -> str:
        what = f"{load:,g} requests/s" if self.given.rate is not None else terminal.number(int(load), "connection")
        return f"{what}: {windows[-1].requests_per_s:,.0f}/s"


def _tell(given: argparse.Namespace, target: Target, levels: Sequence[Level], processes: int) -> None:
    told = bench_report.to_json(target, levels, processes=processes, window_s=given.window, cores=os.cpu_count() or 1)
    if given.json != "-":
        bench_report.show(target, levels, processes=processes, window_s=given.window)
    else:
        terminal.say_json(told)
    written = [(Path(given.json), json.dumps(told, indent=2) + "\n")] if given.json not in (None, "-") else []
    if given.plot is not None and bench_plot.can_draw(levels):
        title = f"{target.model}, {target.what}, {terminal.number(target.rows, 'row')} a request"
        written.append((given.plot, bench_plot.draw(title, levels)))
    for file, text in written:
        try:
            file.write_text(text, "utf-8")
        except OSError as error:
            raise terminal.Complaint(f"{file} cannot be written: {error.strerror}") from None
