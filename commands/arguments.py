"""The command line's words: one tree of commands, each with a module that has `parser()` and `main()`.

Each command's modules are imported for that command alone: --help and --version answer at once. Every setting is an
option of `serve` and `worker`; see front.settings.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from commands import exits
from commands.parsing import PROGRAM, Parser, nearest
from commands.parsing import parser as parser_of
from front.settings import Settings, parse_setting

# In the order in which somebody meets them.
COMMANDS = {
    "serve": "serve a model or a folder of models over HTTP; also what a path alone means",
    "check": "whether a model can be served, what it takes and refuses, and how fast it is",
    "predict": "one request: a body, a picture, an array or a few rows",
    "score": "a whole file of rows, resumable",
    "bench": "how many requests a server or a model bears, and how quickly they are answered",
    "status": "what a running server does just now",
    "reload": "have a running server take up changed models, or go back to the last ones",
    "log": "the prediction log: its state, its rows, into the database, and again through another version",
    "worker": "the models' processes alone, for another WSGI server",
}
SERVING = ("serve", "worker")
# Those that run a model in a server of their own.
EMBEDDING = ("predict", "score", "bench", "log")
FIRST_WORD_MIN = 3


def run(arguments: Sequence[str], version: str, server: Callable[..., Any]) -> int:
    """Do what the command line says; the exit code. server: InferenceServer, for a command that runs models itself."""
    given = list(arguments)
    if given[:1] in (["--help"], ["-h"]):
        tree().print_help()
        return exits.OK
    if given and given[0] in COMMANDS and given[0] not in SERVING:
        module = import_module(f"commands.{given[0]}")
        code: int = module.main(given[1:], server) if given[0] in EMBEDDING else module.main(given[1:])
        return code
    if given and (meant := _misspelt(given[0])):
        tree().error(f"there is no command or model {given[0]!r}{meant}")
    verb, settings = parse(given, version)
    from commands.serve import serve, serve_workers

    return serve(settings) if verb == "serve" else serve_workers(settings)


def parse(arguments: Sequence[str], version: str) -> tuple[str, Settings]:
    """(command, settings) of `serve` or `worker`: the environment's settings with the command line's on top."""
    command, rest = ("serve", list(arguments)) if arguments[:1] != ["worker"] else ("worker", list(arguments[1:]))
    if arguments[:1] == ["serve"]:
        rest = list(arguments[1:])
    made = serving_parser(command)
    made.add_argument("--version", action="version", version=f"inference-server {version}")
    given = vars(made.parse_args(rest))
    given["model_path"] = given.pop("path")
    try:
        changes = {one.name: parse_setting(one, given[one.name]) for one in fields(Settings) if given.get(one.name)}
        return command, replace(Settings.from_environment(), **changes).checked()
    except ValueError as error:
        made.error(str(error))


def tree() -> Parser:
    """The command line as a whole."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {does}" for name, does in COMMANDS.items())
    made = parser_of(
        "",
        "Point it at a Keras or TensorFlow model and it is an HTTP API.",
        (
            "models/saved",
            "serve models/saved --port 9000",
            "check model.keras",
            "predict model.keras body.json",
            "score model.keras rows.csv -o answers.csv",
        ),
        codes=tuple(exits.EXIT_CODES),
        settings=f"{PROGRAM} COMMAND --help says more of each. A model that is called like a command is ./NAME. Each "
        "setting is an environment variable and an option of serve: BATCH_MAX_SIZE is --batch-max-size.",
        usage=f"{PROGRAM} [COMMAND] …",
    )
    made.description = f"{made.description}\n\ncommands:\n{listed}"
    made.add_argument("--version", action="store_true", help="show the version and exit")
    return made


def serving_parser(command: str) -> Parser:
    """The words of `serve` or `worker`: every setting but secrets."""
    examples: tuple[str, ...]
    if command == "serve":
        does = "Serve a model or a folder of models over HTTP until SIGTERM or Ctrl-C; the word serve may be left out."
        examples = (
            "models/saved",
            "serve model.keras --host 0.0.0.0 --port 9000 --api-key-file keys",
            "serve models/saved --batch-max-wait-ms 2",
        )
    else:
        does = "Run the models' processes alone, for another WSGI server to attach to: inference_server:wsgi()."
        examples = ("worker --socket /run/inference.sock models/saved",)
    made = parser_of(
        command,
        does,
        examples,
        codes=tuple(exits.EXIT_CODES)[:5],
        settings="Each option is also an environment variable: --batch-max-size is BATCH_MAX_SIZE. DATABASE_URL, which "
        "holds a password, is one only.",
        usage=f"{PROGRAM} {'[serve]' if command == 'serve' else command} [PATH] [--SETTING X …]",
    )
    made.add_argument("path", nargs="?", metavar="PATH", help="a model or a folder of models (MODEL_PATH)")
    for one in fields(Settings):
        if one.name == "model_path" or one.metadata["secret"]:
            continue
        flags = [f"--{one.name.replace('_', '-')}"] + (["--socket"] if one.name == "worker_socket" else [])
        about = one.metadata["help"].replace("%", "%%")
        if str(one.type) == "bool":
            made.add_argument(*flags, action="store_const", const="true", help=about)
        else:
            default = "" if one.default is None else f" (default {one.default})"
            made.add_argument(*flags, metavar="X", help=about + default)
    return made


def help_texts() -> dict[str, str]:
    """The --help of every command by what is typed for it, "" for the tree: the same on every terminal."""
    texts = {"": tree().format_help()}
    for name in COMMANDS:
        made = serving_parser(name) if name in SERVING else import_module(f"commands.{name}").parser()
        texts[name] = made.format_help()
        for action in made._actions:  # noqa: SLF001 - argparse has no other way to ask for them
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
                texts |= {f"{name} {verb}": inner.format_help() for verb, inner in action.choices.items()}
    return texts


def _misspelt(word: str) -> str:
    """Which command was perhaps meant by a word that is neither one nor a path; nothing where that is unlikely."""
    if len(word) < FIRST_WORD_MIN or not word.isalpha() or word in COMMANDS or Path(word).exists():
        return ""
    return nearest(word, COMMANDS)
