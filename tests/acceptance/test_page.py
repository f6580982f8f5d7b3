"""The list of cases says what the tests show, and nothing that a release needs is without one."""

from __future__ import annotations

from tests.acceptance.cases import CASES, GROUPS
from tests.acceptance.page import PAGE, page, shown


def test_the_page_is_what_make_docs_would_write() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: make docs"


def test_every_case_that_a_release_needs_has_a_test() -> None:
    tests = shown()
    assert [case.id for case in CASES if case.gate and case.id not in tests] == []


def test_a_test_names_only_cases_that_are_in_the_list() -> None:
    ids = [case.id for case in CASES]
    assert sorted(shown().keys() - set(ids)) == []
    assert len(ids) == len(set(ids)) and {i.rstrip("0123456789") for i in ids} == GROUPS.keys()
