"""Makes a lake with a short run of the demo and executes the notebooks on it: `make notebooks`, `make notebooks-spark`.

Executed copies, with their outputs, go to build/notebooks (those on Spark to build/notebooks-spark), and so does what
they write; the notebooks themselves hold no outputs. A cell that fails (each notebook asserts that its figures are
those of another engine, or of another way), or a notebook without a table and a plot to show, ends it with exit code 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent
BUILD = HERE.parent / "build"
SHOWN = {"text/html": "tables", "image/png": "plots"}


def main() -> int:
    parser = argparse.ArgumentParser(description="Execute the notebooks on a lake of the demo.")
    parser.add_argument("--spark", action="store_true", help="those that need Spark, instead of those that do not")
    spark = parser.parse_args().spark
    build = BUILD / ("notebooks-spark" if spark else "notebooks")
    make_lake(build)
    if spark:
        from claimhouse.distributed import artifacts

        artifacts.fetch(["spark"], say=lambda word: print(word, flush=True))
    chosen = [path for path in sorted(HERE.glob("*.ipynb")) if on_spark(path) == spark]
    failed = [path for path in chosen if not execute(path, build)]
    return 1 if failed else 0


def make_lake(build: Path) -> None:
    """A new lake in the folder, and an environment in which notebooks find it and keep to the folder."""
    began = time.monotonic()
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    demo = ["demo", "--duration", "6s", "--scale", "0.3", "--folder", str(build / "demo"), "--plain"]
    for _ in range(2):  # the second one lives on in a lake whose copies are complete: there is a past to go back to
        subprocess.run([sys.executable, "-m", "claimhouse", *demo], check=True, stderr=subprocess.DEVNULL)
    print(f"a lake was made in {time.monotonic() - began:.0f} s", flush=True)
    os.environ.update(
        CLAIMHOUSE_LAKE_LOCATION=str(build / "demo" / "lake"), MPLBACKEND="module://matplotlib_inline.backend_inline"
    )
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        os.environ[name] = str(build / ".state")


def on_spark(path: Path) -> bool:
    """Whether a notebook needs Spark."""
    return "claimhouse.spark" in path.read_text()


def execute(path: Path, build: Path) -> bool:
    """Whether a notebook runs through and shows tables and plots."""
    began = time.monotonic()
    book = nbformat.read(path, as_version=4)
    try:
        where = {"metadata": {"path": str(build)}}
        quiet = ["--IPKernelApp.log_level=40"]
        NotebookClient(book, timeout=600, kernel_name="python3", resources=where, extra_arguments=quiet).execute()
    except CellExecutionError as error:
        print(f"{path.name}: failed\n{error}", flush=True)
        return False
    finally:
        nbformat.write(book, build / path.name)
    found = {word: kinds(book.cells).count(kind) for kind, word in SHOWN.items()}
    told = ", ".join(f"{count} {word}" for word, count in found.items())
    print(f"{path.name}: {time.monotonic() - began:.0f} s, {told}", flush=True)
    return all(found.values())


def kinds(cells: Iterable[nbformat.NotebookNode]) -> list[str]:
    """The kinds of all that the cells show."""
    return [kind for cell in cells for output in cell.get("outputs", ()) for kind in output.get("data", ())]


if __name__ == "__main__":
    sys.exit(main())
