"""The command line's words. Every setting is an option of the same name; see front.settings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace

from front.settings import Settings, parse_setting


def parse(arguments: Sequence[str], version: str) -> tuple[str, Settings]:
    """(verb, settings): the environment's settings with the command line's on top."""
    parser = argparse.ArgumentParser(
        prog="inference_server.py",
        description="Serve Keras and TensorFlow models over HTTP: inference_server.py [PATH], "
        "or run workers alone for another WSGI server: inference_server.py worker --socket PATH [MODEL].",
        epilog="Each option is also an environment variable: --batch-max-size is BATCH_MAX_SIZE. "
        "DATABASE_URL, which holds a password, is one only.",
    )
    parser.add_argument("path", nargs="?", help="a model or a folder of models (MODEL_PATH)")
    parser.add_argument("--version", action="version", version=f"inference-server {version}")
    for one in fields(Settings):
        if one.name == "model_path" or one.metadata["secret"]:
            continue
        flags = [f"--{one.name.replace('_', '-')}"] + (["--socket"] if one.name == "worker_socket" else [])
        default = "" if one.default is None else f" (default {one.default})"
        if str(one.type) == "bool":
            parser.add_argument(*flags, action="store_const", const="true", help=one.metadata["help"])
        else:
            parser.add_argument(*flags, metavar="X", help=one.metadata["help"] + default)
    verb = "serve"
    if arguments and arguments[0] == "worker":
        verb, arguments = "worker", arguments[1:]
    given = vars(parser.parse_args(list(arguments)))
    given["model_path"] = given.pop("path")
    try:
        changes = {one.name: parse_setting(one, given[one.name]) for one in fields(Settings) if given.get(one.name)}
        return verb, replace(Settings.from_environment(), **changes).checked()
    except ValueError as error:
        parser.error(str(error))
