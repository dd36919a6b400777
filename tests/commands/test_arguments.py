"""The command line as a whole: what it says of itself, and what it makes of words that it does not know."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from commands import arguments, exits
from commands.parsing import WIDTH
from tests.harness import ROOT, SOON_S

PROGRAM = [sys.executable, str(ROOT / "inference_server.py")]


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, **environment}
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=SOON_S, env=settings)


def test_help_lists_every_command_with_a_line_and_an_example() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for name, does in arguments.COMMANDS.items():
        assert f"  {name:<7}  {does}" in done.stdout
    assert "examples:\n  inference_server.py models/saved\n" in done.stdout
    for code, meaning in exits.EXIT_CODES.items():
        assert f"  {code:<4} {meaning}" in done.stdout


@pytest.mark.parametrize("command", arguments.help_texts())
def test_each_commands_help_has_examples_exit_codes_and_where_its_settings_come_from(command: str) -> None:
    text = arguments.help_texts()[command]
    example = f"  inference_server.py {command}".rstrip()
    assert example in text[text.index("examples:") :] or command == "serve"
    assert "exit codes:\n  0    all is well\n" in text
    assert "etting" in text[text.index("exit codes:") :]
    assert max(map(len, text.splitlines())) <= WIDTH + 20  # an example stands in one line


def test_help_is_the_same_whatever_the_terminals_width() -> None:
    assert run("score", "--help", COLUMNS="40").stdout == run("score", "--help", COLUMNS="200").stdout
    assert run("score", "--help").stdout == arguments.help_texts()["score"]


@pytest.mark.parametrize(("plain", "bold"), [("", True), ("1", False)])
def test_headings_are_bold_on_a_terminal_but_not_where_no_colour_is_wanted(plain: str, bold: bool) -> None:
    outside, inside = pty.openpty()
    environment = {**os.environ, "NO_COLOR": plain}
    with subprocess.Popen([*PROGRAM, "check", "--help"], stdout=inside, stderr=inside, env=environment) as process:
        os.close(inside)
        seen = b""
        try:
            while piece := os.read(outside, 4096):
                seen += piece
        except OSError:  # how a terminal says that its other side has gone
            pass
    os.close(outside)
    assert process.returncode == 0
    assert (b"\033[1mexamples:" in seen) is bold
    assert b"examples:" in seen


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chekc", "model"], "there is no command or model 'chekc'; did you mean check?"),
        (["score", "m", "in.csv", "-o", "out.csv", "--restrat"], "no option --restrat; did you mean --restart?"),
        (["status", "more"], "unrecognized arguments: more"),
        (["--batch-max-siz", "x", "--no-such"], "--no-such"),
        (["log", "stauts"], "'stauts'"),
        (["check", "m", "--\033[31m"], "\\x1b"),
    ],
    ids=["command", "option", "word", "setting", "verb", "escape"],
)
def test_what_it_does_not_know_is_a_complaint_of_one_line(words: list[str], said: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.startswith("inference_server: ")
    assert done.stderr.count("\n") == 1
    assert "\033" not in done.stderr


def test_serve_is_a_word_of_its_own_beside_the_path_alone(tmp_path: Path) -> None:
    for words in (("serve", "nowhere.keras"), ("nowhere.keras",)):
        done = run(*words)
        assert (done.returncode, "nowhere.keras is missing" in done.stderr) == (exits.NO_MODEL, True)


def test_a_model_named_like_a_command_is_reached_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "check").mkdir()
    for words in (("serve", "check"), ("./check",)):
        done = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=SOON_S, cwd=tmp_path)
        assert (done.returncode, "check" in done.stderr) == (exits.NO_MODEL, True)
