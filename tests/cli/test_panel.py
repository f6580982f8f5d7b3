"""The demo's panel: fits the terminal, says what matters, falls back to lines where there is no terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from rich.console import Console

from claimhouse.cli.panel import ClaimView, TableView, View, line, millis, panel, show, spark

TABLES = [TableView(f"table_{n:02d}", 1000 * n, n * 7) for n in range(20)]
VIEW = View(
    lake=".demo/lake", seconds=42, remaining=18, book_date=date(2026, 2, 14), transactions=2104, changes=12_482,
    copied=291_035, changes_per_second=[200, 300, 299], lags=[12, 14, 9], lag_p50=12, lag_p99=41, lag_max=88, cuts=1204,
    flushes=21, cuts_in_tail=37, tables=TABLES,
    claims=[ClaimView(f"CLM-2026-{n:06d}", "motor", "rear_end", "Columbus", Decimal(n)) for n in range(900, 860, -1)],
)  # fmt: skip


def drawn(view: View, width: int, height: int, **options) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None, **options)
    console.print(panel(view, height))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (120, 30), (120, 60), (200, 24)])
def test_it_fits_the_terminal(width: int, height: int) -> None:
    page = f"http://127.0.0.1:43567/?token={'x' * 43}"
    view = replace(VIEW, verified="21 tables, no difference", equal=True, news="a new column, channel", page=page)
    lines = drawn(view, width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert any(page in text for text in lines)


@pytest.mark.parametrize("width", [80, 120])
def test_it_says_what_matters(width: int) -> None:
    text = "\n".join(drawn(VIEW, width, 24))
    for word in ("12,482 changes", "2,104 transactions", "12 ms", "p99 41  max 88 ms", "1,204 cuts", "CLM-2026-000900",
                 "291,035 copied", "14 Feb 2026", "0:18 left"):  # fmt: skip
        assert word in text, word


def test_a_troubled_table_is_always_shown_with_its_state() -> None:
    view = replace(VIEW, tables=[*TABLES, TableView("z_broken", None, 0, "errored")])
    assert any("z_broken errored" in text for text in drawn(view, 80, 24))


def test_tables_without_room_are_counted() -> None:
    text = "\n".join(drawn(VIEW, 120, 18))
    shown = sum(f"table_{n:02d}" in text for n in range(20))
    assert f"and {20 - shown} more" in text


def test_a_difference_found_by_verify_is_not_told_by_colour_alone() -> None:
    assert any(
        "✖ verify  1 row differs" in t for t in drawn(replace(VIEW, verified="1 row differs", equal=False), 80, 24)
    )


def test_an_empty_moment_is_drawn_too() -> None:
    assert "claimhouse" in "\n".join(drawn(View(lake="lake"), 80, 24))
    assert line(View(lake="lake")).startswith("0:00")


def test_without_a_terminal_lines_are_printed_and_no_control_codes() -> None:
    out, turns = io.StringIO(), iter([True] * 6)
    show(lambda: VIEW, lambda: next(turns, False), file=out, plain_every=0.1)
    assert out.getvalue().count("12,482 changes (299/s)") >= 2
    assert "\x1b" not in out.getvalue()


def test_without_a_terminal_the_page_is_told_once() -> None:
    out, turns = io.StringIO(), iter([True] * 6)
    show(lambda: replace(VIEW, page="http://127.0.0.1:1/"), lambda: next(turns, False), file=out, plain_every=0.1)
    assert out.getvalue().count("the live page: http://127.0.0.1:1/\n") == 1


def test_bars_and_lags_are_readable() -> None:
    assert spark([0, 5, 10], 3) == "▁▅█"
    assert spark([1, 2], 5, ascii_only=True) == ""
    assert (millis(None), millis(8.4), millis(12_500)) == ("–", "8 ms", "12.5 s")
