"""Makes the demo models in models/saved: create_demo_models.py [--out DIR] [--force] [NAME…].

Each model is made in a hidden folder and moved into place whole, so a server never sees half of one. What is there
already is left alone. A second run at the same time waits for the first.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("dummy", "linear_regression", "two_features", "digits")
UNFINISHED = ".unfinished-"


def main() -> int:
    """Make what is missing; the exit code."""
    parser = argparse.ArgumentParser(description="Make the demo models that are missing.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of {', '.join(NAMES)}")
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "saved", help="where (default models/saved)")
    parser.add_argument("--force", action="store_true", help="make them anew even where they are there")
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"there is no demo model {', '.join(sorted(unknown))}")
    sys.path.insert(0, str(ROOT))
    from models.errors import LoadError

    try:
        given.out.mkdir(parents=True, exist_ok=True)
        with locked(given.out):
            make(given.names or NAMES, given.out, force=given.force)
    except (LoadError, ImportError, OSError, RuntimeError) as error:
        return fail(str(error))
    return 0


def make(names: tuple[str, ...], out: Path, *, force: bool) -> None:
    """Those that are missing, or all of them. Raises what making them raises; the ones before are in place then."""
    for left in out.glob(f"{UNFINISHED}*"):  # of a run that was killed: nobody else holds the lock
        shutil.rmtree(left)
    wanted = [name for name in names if force or not is_whole(out, name)]
    if not wanted:
        say("all there")
        return
    say(f"loading TensorFlow, then making {', '.join(wanted)}")
    for name, write in writers().items():
        if name not in wanted:
            continue
        started = time.monotonic()
        unfinished = out / f"{UNFINISHED}{name}"
        (unfinished / "1").mkdir(parents=True)
        try:
            kind = write(unfinished / "1")
            put(unfinished, out / name)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        say(f"{name}: made, {kind}, {time.monotonic() - started:.0f} s")


def is_whole(out: Path, name: str) -> bool:
    """Whether the model is there, as far as can be seen without loading it."""
    from models.repository import scan

    return any(one.name == name and one.refusal is None and one.contract_path for one in scan(out))


def writers() -> dict[str, Callable[[Path], str]]:
    """What writes each model into a version's folder and says what it is. Loads TensorFlow, which takes seconds."""
    from models.runtime import import_tensorflow

    import_tensorflow()
    from demo_models.digits import write_digits
    from demo_models.small import write_dummy, write_linear_regression, write_two_features

    return {
        "dummy": write_dummy,
        "linear_regression": write_linear_regression,
        "two_features": write_two_features,
        "digits": lambda folder: write_digits(folder, lambda text: say(f"digits: {text}")),
    }


def put(new: Path, place: Path) -> None:
    """Move a finished folder to its place, and what was there away."""
    old = place.with_name(f"{UNFINISHED}old-{place.name}")
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone in the folder; the lock is the folder itself, so nothing is left lying about."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run to finish")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def say(text: str) -> None:
    """One line of progress."""
    print(f"create_demo_models: {text}", flush=True)


def fail(reason: str) -> int:
    """One line about what went wrong; the exit code."""
    print(f"create_demo_models: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
