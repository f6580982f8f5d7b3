"""Writes docs/acceptance.md from the list of cases and the markers of the tests: `make docs`, or `python -m` this."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.acceptance.cases import CASES, GROUPS, Case

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/acceptance.md"

HEAD = """\
# Cases

<!-- Written by `make docs` from tests/acceptance/cases.py and the tests' markers: change it there. -->

What may come, and what claimhouse does then. A case with **·** is needed for a release: a test shows that it holds, on
a real PostgreSQL and real Delta tables. A test says which cases it shows by `@pytest.mark.case("O3")`, and
`pytest -m case --collect-only` lists them all. Tests in tests/versions run on PostgreSQL 14 to 18, those in tests/stack
on the full stack.
"""


def shown() -> dict[str, list[str]]:
    """The tests of each case, as `path::name`, in order."""
    found: dict[str, list[str]] = {}
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        path = file.relative_to(ROOT).as_posix()
        for name, ids in _marked(ast.parse(file.read_text(encoding="utf-8"))):
            for case in ids:
                found.setdefault(case, []).append(f"{path}::{name}")
    return found


def _marked(module: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """(name, cases) of each test of a module that says which it shows, or whose module does."""
    of_all: list[str] = []
    for node in module.body:
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["pytestmark"]:
            of_all = list(_ids(node.value))
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            ids = [*of_all, *(i for decorator in node.decorator_list for i in _ids(decorator))]
            if ids:
                yield node.name, ids


def _ids(code: ast.expr) -> Iterator[str]:
    for node in ast.walk(code):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.case":
            yield from (str(ast.literal_eval(argument)) for argument in node.args)


def page() -> str:
    """docs/acceptance.md as it must be."""
    tests = shown()
    parts = [HEAD]
    for letter, title in GROUPS.items():
        cases = [c for c in CASES if c.id.rstrip("0123456789") == letter]
        rows = "".join(f"| {c.id}{' **·**' if c.gate else ''} | {c.comes} | {c.does} |\n" for c in cases)
        parts.append(f"## {title}\n\n| case | what comes | what claimhouse does |\n| --- | --- | --- |\n{rows}")
        parts += [_listed(c, tests.get(c.id, [])) for c in cases]
    return "\n".join(parts)


def _listed(case: Case, tests: list[str]) -> str:
    if not tests:
        return f"**{case.id}**: no test yet.\n"
    by_file: dict[str, list[str]] = {}
    for test in tests:
        file, name = test.split("::")
        by_file.setdefault(file, []).append(f"`{name.removeprefix('test_')}`")
    return f"**{case.id}**: " + "; ".join(f"{file}: {', '.join(names)}" for file, names in by_file.items()) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
