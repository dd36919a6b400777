"""The command line's words. Every setting is an option of the same name; see front.settings.

Each verb's modules are imported for that verb alone: --help and --version answer at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

from front.settings import Settings, parse_setting


def run(arguments: Sequence[str], version: str, server: Callable[..., Any]) -> int:
    """Do what the command line says; the exit code. server: InferenceServer, for a verb that runs models itself."""
    if arguments[:1] == ["log"]:
        from commands import log

        return log.main(arguments[1:], server)
    if arguments[:1] == ["reload"]:
        from commands import reload

        return reload.main(arguments[1:])
    if arguments[:1] == ["check"]:
        from commands import check

        return check.main(arguments[1:])
    verb, settings = parse(arguments, version)
    from commands.serve import serve, serve_workers

    return serve(settings) if verb == "serve" else serve_workers(settings)


def parse(arguments: Sequence[str], version: str) -> tuple[str, Settings]:
    """(verb, settings): the environment's settings with the command line's on top."""
    parser = argparse.ArgumentParser(
        prog="inference_server.py",
        description="Serve Keras and TensorFlow models over HTTP: inference_server.py [PATH], "
        "or run workers alone for another WSGI server: inference_server.py worker --socket PATH [MODEL]. "
        "Whether a model can be served, and how fast: inference_server.py check --help. "
        "The prediction log from the outside: inference_server.py log --help. "
        "Have a running server take up changed models: inference_server.py reload --help.",
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
