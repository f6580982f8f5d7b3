"""docs/fraud.md says what the rules' files say."""

from __future__ import annotations

from pathlib import Path

from claimhouse.fraud.document import markdown


def test_the_page_agrees_with_the_rules_headers() -> None:
    page = Path(__file__).parents[2] / "docs" / "fraud.md"
    assert page.read_text() == markdown(), "run: python -m claimhouse.fraud.document docs/fraud.md"
