"""The live panel of the demo: what is captured, how fast it can be queried, which claims came in.

`View` is a plain picture of one moment; whoever lives the demo makes one whenever asked. `show` draws it in place on a
terminal, and as a line every few seconds elsewhere. The panel fits 80 columns and uses more: what is most changed is
shown first, what has no room is counted. Colour only repeats what words and figures say.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

WIDE = 108
_BARS = "▁▂▃▄▅▆▇█"
_STATES = {"exact": ("●", "green"), "copying": ("◐", "yellow"), "errored": ("✖", "red"), "append-only": ("○", "yellow")}


@dataclass(frozen=True)
class TableView:
    """One table: rows now (None while unknown), changes captured so far, and its state in the lake's words."""

    name: str
    rows: int | None
    changes: int = 0
    state: str = "exact"


@dataclass(frozen=True)
class ClaimView:
    """One of the newest claims; `reserve` is what is held for it."""

    number: str
    line: str
    cause: str
    place: str
    reserve: Decimal | None = None
    status: str = "new"


@dataclass(frozen=True)
class View:
    """One moment. `seconds` lived and `remaining` (None: until stopped); lags in milliseconds from commit to queryable;
    `page`: the address of the live page, with its token; `changes_per_second` and `lags` are histories, newest last;
    `verified`: verify's verdict and whether all was equal; `news`: the newest thing worth a sentence."""

    lake: str
    page: str | None = None
    seconds: float = 0.0
    remaining: float | None = None
    book_date: date | None = None
    transactions: int = 0
    changes: int = 0
    copied: int = 0
    changes_per_second: Sequence[float] = ()
    lags: Sequence[float] = ()
    lag_p50: float | None = None
    lag_p99: float | None = None
    lag_max: float | None = None
    cuts: int = 0
    flushes: int = 0
    cuts_in_tail: int = 0
    tables: Sequence[TableView] = ()
    claims: Sequence[ClaimView] = ()
    verified: str | None = None
    equal: bool | None = None
    news: str = ""


@dataclass(frozen=True)
class Panel:
    """What rich draws of a View: as wide and high as it is given."""

    view: View
    height: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        view, wide = self.view, options.max_width >= WIDE
        height = (self.height or options.height or console.height) - 1
        plain = options.ascii_only
        yield _head(view)
        if view.page:
            # Folded where it must be, never cut: the token at its end is what opens the page.
            yield Text.assemble(("page  ", "dim"), (view.page, f"bold link {view.page}"), overflow="fold")
            height -= -(-(len(view.page) + 6) // options.max_width)
        yield Rule(style="dim", characters="-" if plain else "─")
        yield _figures(view, plain)
        foot = _foot(view)
        room = min(height - 7 - len(foot), len(view.tables) + 1 if wide else height)
        if wide:
            body = Table.grid(expand=True, padding=(0, 2, 0, 0))
            body.add_column(ratio=6)
            body.add_column(ratio=7)
            body.add_row(_tables(view.tables, max(room, 3), plain), _claims(view.claims, max(room, 3), True))
            yield body
        else:
            claims = min(len(view.claims), max(2, room // 3 - 1))
            halves = min(room - claims - 2, (len(view.tables) + 1) // 2 + 1)
            yield _halves(view.tables, max(halves, 3), plain)
            yield Text()
            yield _claims(view.claims, claims, False)
        yield from foot


def panel(view: View, height: int | None = None) -> RenderableType:
    """The panel of one moment; `height` in lines, by default the terminal's."""
    return Panel(view, height)


def line(view: View) -> str:
    """The moment in one line, for where there is no terminal."""
    parts = [clock(view.seconds)]
    if view.book_date:
        parts.append(f"book {view.book_date.isoformat()}")
    if view.copied:
        parts.append(f"{view.copied:,} rows copied")
    rate = f" ({view.changes_per_second[-1]:,.0f}/s)" if view.changes_per_second else ""
    parts.append(f"{view.transactions:,} transactions, {view.changes:,} changes{rate}")
    if view.lag_p50 is not None:
        parts.append(f"lag {millis(view.lag_p50)}, p99 {millis(view.lag_p99)}, max {millis(view.lag_max)}")
    parts.append(f"{view.cuts:,} cuts, {view.flushes:,} flushes")
    if view.claims:
        newest = view.claims[0]
        parts.append(f"newest {newest.number} {newest.line} {newest.cause}")
    if view.verified:
        parts.append(view.verified)
    return " · ".join(parts)


def show(
    look: Callable[[], View], alive: Callable[[], bool], *, plain: bool | None = None, every: float = 0.25,
    plain_every: float = 2.0, file: TextIO | None = None,
) -> None:  # fmt: skip
    """Show what `look` returns while `alive` is true: the panel on a terminal, else a line every `plain_every` seconds.

    Writes to stderr by default: stdout is data. The last picture stays.
    """
    out = file or sys.stderr
    console = Console(file=out)
    if plain or (plain is None and not console.is_terminal):
        _show_lines(look, alive, plain_every, out)
        return
    with Live(panel(look()), console=console, auto_refresh=False, transient=False) as live:
        while alive():
            live.update(panel(look()), refresh=True)
            time.sleep(every)
        live.update(panel(look()), refresh=True)


def _show_lines(look: Callable[[], View], alive: Callable[[], bool], every: float, out: TextIO) -> None:
    told, page = time.monotonic(), None
    while alive():
        time.sleep(min(0.1, every))
        if page is None and (page := look().page):
            print(f"the live page: {page}", file=out, flush=True)
        if time.monotonic() - told >= every:
            told = time.monotonic()
            print(line(look()), file=out, flush=True)


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def millis(value: float | None) -> str:
    """A lag: milliseconds, or seconds from ten thousand on."""
    if value is None:
        return "–"
    return f"{value / 1000:,.1f} s" if value >= 10_000 else f"{value:,.0f} ms"


def spark(values: Sequence[float], width: int, ascii_only: bool = False) -> str:
    """A history as a row of bars, newest right; empty where bars cannot be drawn."""
    newest = list(values)[-width:]
    if ascii_only or not newest:
        return ""
    top = max(max(newest), 1e-9)
    return "".join(_BARS[min(int(v / top * len(_BARS)), len(_BARS) - 1)] for v in newest)


def _head(view: View) -> RenderableType:
    head = Table.grid(expand=True)
    head.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    head.add_column(no_wrap=True, justify="right")
    name = Text.assemble(("claimhouse", "bold cyan"), ("  live  ", "dim"), view.lake)
    when = Text()
    if view.book_date:
        when.append("book ", "dim").append(f"{view.book_date:%d %b %Y}", "bold").append("   ")
    when.append(clock(view.seconds), "bold")
    if view.remaining is not None:
        when.append(f"  {clock(view.remaining)} left", "dim")
    head.add_row(name, when)
    return head


def _figures(view: View, plain: bool) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    for ratio in (9, 11, 10, 10):
        grid.add_column(ratio=ratio, no_wrap=True, overflow="ellipsis")
    rate = f"{view.changes_per_second[-1]:,.0f}" if view.changes_per_second else "–"
    grid.add_row(*(Text(t, "dim") for t in ("changes a second", "commit to query", "captured", "lake")))
    grid.add_row(
        Text(rate, "bold"), Text(millis(view.lag_p50), "bold"), Text(f"{view.changes:,} changes", "bold"),
        Text(f"{view.cuts:,} cuts", "bold"),
    )  # fmt: skip
    grid.add_row(
        Text(spark(view.changes_per_second, 16, plain), "cyan"), Text(spark(view.lags, 16, plain), "cyan"),
        f"{view.transactions:,} transactions", f"{view.flushes:,} flushes",
    )  # fmt: skip
    lag = f"p99 {view.lag_p99:,.0f}  max {millis(view.lag_max)}" if view.lag_p99 is not None else ""
    copied = f"{view.copied:,} copied" if view.copied else ""
    grid.add_row("", Text(lag, "dim"), Text(copied, "dim"), Text(f"{view.cuts_in_tail:,} cuts in the tail", "dim"))
    return Padding(grid, (0, 0, 1, 0), expand=True)


def _state(state: str, plain: bool) -> Text:
    mark, colour = _STATES.get(state, ("●", "yellow"))
    return Text(state[:1] if plain else mark, colour)


def _ordered(tables: Sequence[TableView], room: int) -> tuple[list[TableView], int]:
    """The tables that have room: troubled ones and the most changed, by name; and how many are left out."""
    order = sorted(tables, key=lambda t: (t.state == "exact", -t.changes, -(t.rows or 0), t.name))
    shown = order if len(order) <= room else order[: max(room - 1, 1)]
    return sorted(shown, key=lambda t: (t.state == "exact", t.name)), len(order) - len(shown)


def _table_grid(title: bool = True) -> Table:
    grid = Table.grid(expand=True, padding=(0, 1, 0, 0))
    grid.add_column(width=1)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    if title:
        grid.add_row("", *(Text(t, "dim") for t in ("table", "rows", "changes")))
    return grid


def _table_row(grid: Table, table: TableView, plain: bool) -> None:
    rows = "–" if table.rows is None else f"{table.rows:,}"
    name = Text(table.name) if table.state == "exact" else Text.assemble(table.name, (f" {table.state}", "yellow"))
    changes = Text(f"{table.changes:,}" if table.changes else "·", "" if table.changes else "dim")
    grid.add_row(_state(table.state, plain), name, rows, changes)


def _tables(tables: Sequence[TableView], room: int, plain: bool) -> RenderableType:
    shown, rest = _ordered(tables, room - 1)
    grid = _table_grid()
    for table in shown:
        _table_row(grid, table, plain)
    if rest:
        grid.add_row("", Text(f"and {rest} more", "dim"), "", "")
    return grid


def _halves(tables: Sequence[TableView], room: int, plain: bool) -> RenderableType:
    """The tables in two columns, filled downward."""
    shown, rest = _ordered(tables, 2 * (room - 1))
    middle = (len(shown) + bool(rest) + 1) // 2
    both = Table.grid(expand=True, padding=(0, 3, 0, 0))
    both.add_column(ratio=1)
    both.add_column(ratio=1)
    left, right = _table_grid(), _table_grid()
    for table in shown[:middle]:
        _table_row(left, table, plain)
    for table in shown[middle:]:
        _table_row(right, table, plain)
    if rest:
        right.add_row("", Text(f"and {rest} more", "dim"), "", "")
    both.add_row(left, right)
    return both


def _claims(claims: Sequence[ClaimView], room: int, header: bool) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    if header or claims:
        grid.add_row(*(Text(t, "dim") for t in ("newest claims", "line", "cause", "place", "reserve")))
    for claim in list(claims)[: max(room - 1 if header else room, 1)]:
        reserve = "–" if claim.reserve is None else f"{claim.reserve:,.0f}"
        cause = claim.cause.replace("_", " ")
        grid.add_row(Text(claim.number, "bold"), claim.line, Text(cause), Text(claim.place), Text(reserve))
    return grid


def _foot(view: View) -> list[RenderableType]:
    out: list[RenderableType] = [Text()] if view.news or view.verified else []
    if view.news:
        out.append(Text(view.news, "dim", no_wrap=True, overflow="ellipsis"))
    if view.verified:
        mark, colour = ("✔", "green") if view.equal else ("✖", "red") if view.equal is False else ("…", "yellow")
        out.append(Text.assemble((f"{mark} ", colour), ("verify  ", "bold"), view.verified))
    return out
