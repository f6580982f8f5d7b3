"""The notebooks hold text and code, no outputs: what they show is made anew by `make notebooks`, on Spark by
`make notebooks-spark`."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def code(path: Path) -> list[str]:
    return ["".join(c["source"]) for c in cells(path, "code")]


def test_there_is_a_notebook_for_each_subject_and_two_of_them_are_on_spark() -> None:
    assert [p.stem.partition("-")[2] for p in NOTEBOOKS] == [
        "explore-claims", "time-travel", "pyspark-on-the-change-log", "reserving-with-chainladder", "fraud-queue",
    ]  # fmt: skip
    begins = {p.stem[0]: code(p)[0] for p in NOTEBOOKS}
    two_lines = "import claimhouse.spark\n\nspark = claimhouse.spark.session()"
    assert [n for n, first in begins.items() if first == two_lines] == ["3", "4"]
    assert [p.stem[0] for p in NOTEBOOKS if "claimhouse.spark" in p.read_text()] == ["3", "4"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_holds_no_outputs_and_begins_with_what_it_is_for(path: Path) -> None:
    for cell in cells(path, "code"):
        assert (cell["outputs"], cell["execution_count"], cell["metadata"]) == ([], None, {})
        ast.parse("".join(cell["source"]))
    first = json.loads(path.read_text())["cells"][0]
    assert first["cell_type"] == "markdown" and first["source"][0].startswith("# ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_reads_the_lake_that_the_environment_names(path: Path) -> None:
    text = "".join(code(path))
    assert text.count('os.environ.get("CLAIMHOUSE_LAKE_LOCATION", "../.demo/lake")') == 1
    assert not re.search(r"[\"'](/|~|s3a?://)", text), "a path of one machine"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_asserts_what_it_shows_and_its_plots_say_what_they_are(path: Path) -> None:
    tree = ast.parse("\n".join(code(path)))
    assert sum(isinstance(node, ast.Assert) for node in ast.walk(tree)) >= 1
    plots = [c for c in code(path) if "plt.subplots" in c]
    assert plots
    for cell in plots:
        assert re.search(r"\.set_title\(f?\"", cell) and re.search(r"\.set_xlabel\(f?\"", cell)
        assert ".set_ylabel(" in cell or ".set_yticks(" in cell or ".barh(" in cell
