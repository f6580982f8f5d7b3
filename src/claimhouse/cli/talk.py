"""How commands speak: talk goes to stderr, data to stdout; colour only on a terminal without NO_COLOR."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import IO

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}
_LEVELS = {"error": "red", "warn": "yellow", "ok": "green", "info": "dim"}


def coloured(stream: IO[str]) -> bool:
    """Whether that stream takes colour."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def paint(text: str, colour: str, stream: IO[str]) -> str:
    """The text in that colour, where the stream takes it."""
    return f"\033[{_COLOURS[colour]}m{text}\033[0m" if colour in _COLOURS and coloured(stream) else text


def say(text: str) -> None:
    """A line of talk."""
    print(printable(text), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """A line of talk that asks for attention."""
    print(paint("warning:", "yellow", sys.stderr), printable(text), file=sys.stderr, flush=True)


def fail(message: str, hint: str | None = None) -> None:
    """`error: …` and `hint: …`; a hint may span lines, as SQL does."""
    print(paint("error:", "red", sys.stderr), printable(message), file=sys.stderr)
    if hint:
        print(paint("hint:", "bold", sys.stderr), printable(hint), file=sys.stderr)


def level_mark(level: str) -> str:
    """A finding's level as the first column of its line on stdout: a word, and a colour beside it."""
    return paint(level.ljust(5), _LEVELS.get(level, ""), sys.stdout)


def emit(value: object) -> None:
    """A JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def emit_line(value: object) -> None:
    """One line of NDJSON on stdout, at once."""
    print(json.dumps(value, ensure_ascii=False, default=str, separators=(",", ":")), flush=True)


def columns(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows in aligned columns under a heading: plain text that a person reads and grep finds; numbers to the right."""
    grid = [["" if cell is None else cell for cell in row] for row in rows]
    texts = [list(head)] + [[printable(_number(c)).replace("\n", " ") for c in row] for row in grid]
    widths = [max(len(line[i]) for line in texts) for i in range(len(head))]
    right = [
        all(isinstance(row[i], int | float | str) and not isinstance(row[i], str) for row in grid) and bool(grid)
        for i in range(len(head))
    ]
    return "\n".join(
        "  ".join(t.rjust(w) if r else t.ljust(w) for t, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in texts
    )


def printable(text: str) -> str:
    """The text without control characters: a table's name must not steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def clipped(text: str, width: int) -> str:
    """The text on one line, its end given up for a mark where it is longer."""
    line = " ".join(printable(text).split("\n"))
    return line if len(line) <= width else line[: width - 1] + "…"


def byte_count(count: int | None) -> str:
    """`12.3 MB`; nothing for None."""
    if count is None:
        return ""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"


def _number(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
