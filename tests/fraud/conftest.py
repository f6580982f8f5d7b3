"""A small demo book, and empty books for hand-made cases."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from tests.fraud.books import Case

from claimhouse.claims.book import make_book


@pytest.fixture(scope="session")
def book() -> dict[str, pa.Table]:
    return make_book(seed=2, scale=0.08).tables


@pytest.fixture
def case(book: dict[str, pa.Table]) -> Callable[[], Case]:
    return lambda: Case(book)
