"""Makes a lake with a short run of the demo and executes every notebook on it: `make notebooks`.

Executed copies, with their outputs, go to build/notebooks; the notebooks themselves hold none. A cell that fails, or a
notebook that shows nothing, ends it with exit code 1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "notebooks"


def main() -> int:
    began = time.monotonic()
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    demo = ["demo", "--duration", "6s", "--scale", "0.3", "--folder", str(BUILD / "demo"), "--plain"]
    for _ in range(2):  # the second one lives on in a lake whose copies are complete: there is a past to go back to
        subprocess.run([sys.executable, "-m", "claimhouse", *demo], check=True, stderr=subprocess.DEVNULL)
    print(f"a lake was made in {time.monotonic() - began:.0f} s", flush=True)
    os.environ.update(
        CLAIMHOUSE_LAKE_LOCATION=str(BUILD / "demo" / "lake"), MPLBACKEND="module://matplotlib_inline.backend_inline"
    )
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        os.environ[name] = str(BUILD / ".state")
    return 1 if [path for path in sorted(HERE.glob("*.ipynb")) if not execute(path)] else 0


def execute(path: Path) -> bool:
    """Whether a notebook runs through and shows something."""
    began = time.monotonic()
    book = nbformat.read(path, as_version=4)
    try:
        where = {"metadata": {"path": str(HERE)}}
        quiet = ["--IPKernelApp.log_level=40"]
        NotebookClient(book, timeout=180, kernel_name="python3", resources=where, extra_arguments=quiet).execute()
    except CellExecutionError as error:
        print(f"{path.name}: failed\n{error}", flush=True)
        return False
    finally:
        nbformat.write(book, BUILD / path.name)
    shown = sum(bool(cell.get("outputs")) for cell in book.cells)
    print(f"{path.name}: {time.monotonic() - began:.0f} s, {shown} cells show something", flush=True)
    return shown > 0


if __name__ == "__main__":
    sys.exit(main())
