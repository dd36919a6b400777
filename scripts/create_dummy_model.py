"""Makes models/dummy_model.keras, the ten-feature example: create_dummy_model.py [PATH].

Ten inputs -> Dense(32, relu) -> Dense(1), with Adam and MSE, trained for 2 epochs on 512 rows of normal noise whose
target is the sum of the features plus 0.1 noise. Always from the same seed.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Make it; the exit code. The file appears at once and whole."""
    parser = argparse.ArgumentParser(description="Make the ten-feature example model.")
    default = ROOT / "models" / "dummy_model.keras"
    parser.add_argument("path", nargs="?", type=Path, default=default, help="where (default models/dummy_model.keras)")
    path: Path = parser.parse_args().path
    if path.suffix != ".keras":
        parser.error("PATH must end in .keras")
    sys.path.insert(0, str(ROOT))
    from models.errors import LoadError

    print("create_dummy_model: training, 2 epochs on 512 rows", flush=True)
    half = path.with_name(f".{path.stem}.{os.getpid()}.keras")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        half.touch()  # so that a folder that cannot be written to is noticed before the work
        from models.runtime import import_tensorflow

        import_tensorflow()
        from demo_models.small import dummy_network

        dummy_network().save(half)
        half.replace(path)
    except (LoadError, ImportError, OSError) as error:
        print(f"create_dummy_model: {error}", file=sys.stderr)
        return 1
    finally:
        with suppress(OSError):
            half.unlink()
    print(f"create_dummy_model: wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
