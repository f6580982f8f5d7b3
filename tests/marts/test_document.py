"""docs/figures.md says what the SQL files say."""

from __future__ import annotations

from pathlib import Path

from claimhouse.marts.document import markdown


def test_the_page_agrees_with_the_sql_headers() -> None:
    page = Path(__file__).parents[2] / "docs" / "figures.md"
    assert page.read_text() == markdown(), "run: python -m claimhouse.marts.document docs/figures.md"
