"""`claimhouse console` as a process: its address, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.query.book import Book

TOKEN = "a-token-of-the-users-own-making"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    book = Book(tmp_path / "lake")
    book.table("claim", {"id": "int8"}, rows=[{"id": 1}])
    book.cut()
    return tmp_path / "lake"


def console(lake: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "claimhouse", "console", "--lake", str(lake), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_token_from_a_file_stays_the_same_from_start_to_start(lake: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    for _ in range(2):
        running = console(lake, "--token-file", str(tmp_path / "token"))
        try:
            assert running.stdout is not None
            assert running.stdout.readline().strip().endswith(f"?token={TOKEN}")
        finally:
            running.kill()
            running.communicate()


@pytest.mark.parametrize("held", [None, "short", "ü" * 30])
def test_a_file_without_a_token_is_told_without_its_content(lake: Path, tmp_path: Path, held: str | None) -> None:
    if held is not None:
        (tmp_path / "token").write_text(held)
    running = console(lake, "--token-file", str(tmp_path / "token"))
    _, told = running.communicate(timeout=60)
    assert running.returncode == 2
    assert "error:" in told and "hint:" in told and "Traceback" not in told
    assert held is None or held not in told
