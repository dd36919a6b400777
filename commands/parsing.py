"""What every command's --help and complaints look like: one form, one width, colour on a terminal only.

Owns the form of a parser. What the commands are called and what they take is theirs to say.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from commands import exits

PROGRAM = "inference_server.py"
WIDTH = 100  # of a help text, whatever the terminal's: the README holds it too
ENVIRONMENT = "Settings come from the environment, in capitals (BATCH_MAX_SIZE); the README has them all."
NO_SETTINGS = "It takes no settings from the environment."
_BOLD, _PLAIN = "\033[1m", "\033[0m"
_HEADING = re.compile(r"^\S.*:$|^usage:", re.MULTILINE)
_UNKNOWN = re.compile(r"unrecognized arguments: (--[a-z0-9-]+)")


class Formatter(argparse.RawDescriptionHelpFormatter):
    """The same text everywhere: neither the terminal's width nor Python's version changes it."""

    def __init__(self, prog: str, **_: Any) -> None:
        super().__init__(prog, max_help_position=28, width=WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        words = ", ".join(action.option_strings)  # Python 3.13 has one metavar for all, older ones repeat it
        return words if action.nargs == 0 else f"{words} {self._format_args(action, str(action.metavar or ''))}"


class Parser(argparse.ArgumentParser):
    """Complains in one line, and names the option that was perhaps meant."""

    def error(self, message: str) -> NoReturn:
        """Say it and end the process. Words that came from the command line are made printable."""
        if found := _UNKNOWN.search(message):
            message = f"there is no option {found[1]}{nearest(found[1], self._option_string_actions)}"
        text = " ".join(message.encode("unicode_escape").decode().replace("\\\\", "\\").split())
        self.exit(exits.USAGE, f"inference_server: {text}; see {self.prog} --help\n")

    def format_help(self) -> str:
        """With a usage that is the same in every version of Python: argparse's folds differ."""
        if self.usage is None:
            positionals = [str(one.metavar) for one in self._actions if not one.option_strings]
            required = [
                f"{one.option_strings[-1]} {one.metavar}"
                for one in self._actions
                if one.required and one.option_strings
            ]
            self.usage = " ".join([self.prog, *positionals, *required, "[OPTIONS]"])
        return super().format_help()

    def print_help(self, file: Any = None) -> None:
        """To a terminal with its headings bold."""
        text = self.format_help()
        if file is None and sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
            text = _HEADING.sub(lambda heading: f"{_BOLD}{heading[0]}{_PLAIN}", text)
        (file or sys.stdout).write(text)


def parser(
    command: str,
    does: str,
    examples: Sequence[str],
    *,
    codes: Sequence[int] = (exits.OK, exits.WRONG, exits.USAGE),
    settings: str = ENVIRONMENT,
    usage: str | None = None,
) -> Parser:
    """A command's parser. examples: what follows the program's name; settings: where its settings come from."""
    return Parser(
        prog=f"{PROGRAM} {command}".strip(),
        description=_folded(does),
        epilog=_ending(examples, codes, settings),
        formatter_class=Formatter,
        usage=usage,
    )


def nearest(word: str, known: Sequence[str] | dict[str, Any]) -> str:
    """`; did you mean …?`, or nothing."""
    found = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {found[0]}?" if found else ""


def _ending(examples: Sequence[str], codes: Sequence[int], settings: str) -> str:
    shown = "\n".join(f"  {PROGRAM} {example}".rstrip() for example in examples)
    ends = "\n".join(f"  {code:<4} {exits.EXIT_CODES[code]}" for code in codes)
    return f"examples:\n{shown}\n\nexit codes:\n{ends}\n\n{_folded(settings)}"


def _folded(text: str) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])
