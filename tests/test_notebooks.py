"""The notebooks hold text and code, no outputs: what they show is made anew by `make notebooks`."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def test_there_are_notebooks_for_a_first_look_for_actuaries_and_for_investigators() -> None:
    assert [p.stem.partition("-")[2] for p in NOTEBOOKS] == [
        "explore-claims", "time-travel-and-reserving", "fraud-queue",
    ]  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_holds_no_outputs_and_begins_with_what_it_is_for(path: Path) -> None:
    for cell in cells(path, "code"):
        assert (cell["outputs"], cell["execution_count"], cell["metadata"]) == ([], None, {})
        ast.parse("".join(cell["source"]))
    first = json.loads(path.read_text())["cells"][0]
    assert first["cell_type"] == "markdown" and first["source"][0].startswith("# ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_reads_the_lake_that_the_environment_names(path: Path) -> None:
    code = "".join("".join(c["source"]) for c in cells(path, "code"))
    assert 'os.environ.get("CLAIMHOUSE_LAKE_LOCATION", "../.demo/lake")' in code
