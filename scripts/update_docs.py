"""Writes what the documents repeat of the code: .env.example, docs/commands.md, and the README's tables of settings,
metrics, commands and exit codes. A test compares.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from batching.families import METRICS  # noqa: E402 - as below
from commands.arguments import COMMANDS, help_texts  # noqa: E402 - as below
from commands.exits import EXIT_CODES  # noqa: E402 - as below
from front.settings import Settings  # noqa: E402 - ours, found through the line above


def default_of(value: object) -> str:
    """A default as it is written in the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


def env_example() -> str:
    """The text of .env.example."""
    lines = [
        "# Every setting with its default; the command line has the same names with dashes (--batch-max-size).",
        "# scripts/serve reads a copy of this file named .env. What is commented out is unset.",
        "",
    ]
    for one in fields(Settings):
        why = one.metadata["why"]
        lines.append(f"# {one.metadata['help']}" + (f" ({why})" if why else ""))
        lines.append(("# " if one.default is None else "") + f"{one.name.upper()}={default_of(one.default)}")
    return "\n".join(lines) + "\n"


def settings_table() -> str:
    """The README's table."""
    lines = ["| setting | default | meaning | why this default |", "|---|---|---|---|"]
    for one in fields(Settings):
        default = f"`{default_of(one.default)}`" if one.default is not None else ""
        lines.append(f"| `{one.name.upper()}` | {default} | {one.metadata['help']} | {one.metadata['why']} |")
    return "\n".join(lines)


def metrics_table() -> str:
    """The README's table of metrics."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    lines += [f"| `{one.name}` | {one.kind} | {', '.join(one.labels)} | {one.help} |" for one in METRICS]
    return "\n".join(lines)


def commands_table() -> str:
    """The README's table of commands."""
    lines = ["| command | what it does |", "|---|---|"]
    return "\n".join(lines + [f"| `{name}` | {does} |" for name, does in COMMANDS.items()])


def exit_codes_table() -> str:
    """The README's table of exit codes."""
    lines = ["| exit code | when |", "|---:|---|"]
    return "\n".join(lines + [f"| {code} | {when} |" for code, when in EXIT_CODES.items()])


def commands_document() -> str:
    """The text of docs/commands.md."""
    parts = [
        "# Commands",
        "",
        "What `--help` says of each. `inference-server`, as `pip install` brings it, is the same program as",
        "`python inference_server.py`.",
    ]
    for name, text in help_texts().items():
        parts += ["", f"## {name or 'All of them'}", "", "```text", text.rstrip(), "```"]
    return "\n".join(parts) + "\n"


TABLES = {
    "settings": settings_table,
    "metrics": metrics_table,
    "commands": commands_table,
    "exit codes": exit_codes_table,
}


def readme(text: str) -> str:
    """The README with its tables brought up to date."""
    for name, table in TABLES.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not end:
            raise SystemExit(f"the README has no place for its {name}")
        text = f"{before}{start}{table()}\n{end}{after}"
    return text


def main() -> None:
    """Write them all."""
    (ROOT / ".env.example").write_text(env_example())
    (ROOT / "docs" / "commands.md").write_text(commands_document())
    path = ROOT / "README.md"
    path.write_text(readme(path.read_text()))


if __name__ == "__main__":
    main()
