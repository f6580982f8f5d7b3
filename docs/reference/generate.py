"""Writes the pages of this folder from the code: commands from the command line itself, settings and types from their
tables. `make docs` runs it; tests/test_docs.py holds the pages equal to what it would write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from typer.main import get_command

from claimhouse.cli.app import app
from claimhouse.postgres.types import KINDS, TYPES
from claimhouse.settings import table

NOTE = "<!-- Written by `make docs` from the code: change it there. -->\n"

COMMANDS = """\
Data goes to stdout, talk to stderr. Exit codes: 0 fine, 1 findings (`doctor`, `status`, `verify`), 2 error.
Colour only on a terminal without `NO_COLOR`. No command asks a question.
"""
SETTINGS = """\
A command's option beats the environment, which beats `claimhouse.toml`, which beats the default;
`claimhouse config show --origin` tells what holds. An unknown name is an error that names the nearest one. In the file,
`lake.location` is `location` below `[lake]`; `<name>` is a source's name. Times have a unit: `25ms`, `2s`, `1m`.
`CLAIMHOUSE_CONFIG` names another settings file.

Passwords do not belong in the file: PostgreSQL's PG* variables, a service file or a passfile hold them, and
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY those of S3. A password in the file works, is warned about, and is masked
wherever it is shown.
"""
TYPE_RULES = """\
Each PostgreSQL type is kept as one *kind*, and each kind is one type of every engine. An array is a list of its
element's kind; a domain is kept as its base type; whatever is not in the table (enums, composites, extensions' types)
is kept as PostgreSQL's text. A value that its kind cannot hold is kept as text in `_exact`.

## Types and kinds
"""


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def commands() -> str:
    """Every command with its help, arguments and options."""
    parts = [
        "# Commands\n",
        NOTE,
        COMMANDS,
    ]
    for path, command in walk("claimhouse", get_command(app)):
        parts += [f"## {path}\n", help_text(command.help or "")]
        shown = [p for p in command.params if p.name not in ("help", "install_completion", "show_completion")]
        if shown:
            parts.append(grid(["option", "meaning"], ([f"`{spelling(p)}`", p.help or ""] for p in shown)))
    return "\n".join(parts)


def walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """(path, command) of each command that does something."""
    children: dict[str, Any] = getattr(command, "commands", {})
    if not children:
        yield path, command
    for name, child in children.items():
        yield from walk(f"{path} {name}", child)


def spelling(parameter: Any) -> str:
    """`--lake PATH`, or an argument's name."""
    if parameter.param_type_name == "argument":
        return parameter.metavar or (parameter.name or "").upper()
    value = "" if parameter.is_flag else " " + (parameter.metavar or (parameter.name or "").upper())
    return ", ".join(parameter.opts) + value


def help_text(text: str) -> str:
    """A command's docstring as Markdown: its examples become a block of code."""
    words, _, examples = text.partition("\b\nExamples:\n")
    block = "\n".join(line[2:] for line in examples.rstrip().splitlines())
    return words.strip() + "\n" + (f"\n```sh\n{block}\n```\n" if block else "")


def settings() -> str:
    """The table of settings."""
    rows = ([f"`{r.name}`", f"`{r.variable}`", f"`{r.default}`" if r.default else "", r.doc] for r in table())
    return "\n".join(["# Settings\n", NOTE, SETTINGS, grid(["setting", "variable", "default", "meaning"], rows)])


def types() -> str:
    """PostgreSQL's types and the kinds that keep them."""
    kept = ([f"`{t.name}`", f"`{t.kind}`", t.note] for t in TYPES)
    kinds = ([f"`{k.name}`", k.arrow, k.delta, k.spark, k.trino, k.duckdb, k.exact] for k in KINDS)
    engines = grid(["kind", "Arrow", "Delta", "Spark", "Trino", "DuckDB", "kept in `_exact`"], kinds)
    return "\n".join(
        [
            "# Types\n",
            NOTE,
            TYPE_RULES,
            grid(["PostgreSQL", "kind", "note"], kept),
            "## Kinds in each engine\n",
            engines,
        ]
    )


PAGES: dict[str, Callable[[], str]] = {"commands.md": commands, "settings.md": settings, "types.md": types}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (Path(__file__).parent / name).write_text(page(), encoding="utf-8")
