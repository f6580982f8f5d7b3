"""Archives from a registry are unpacked into their own folder and nowhere else, by an older Python too."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from claimhouse.distributed import artifacts
from claimhouse.errors import SettingsError


def archive(path: Path, *members: tuple[str, bytes, str, int]) -> Path:
    """A tar file of (name, type, where a link leads, mode)."""
    with tarfile.open(path, "w:gz") as made:
        for name, kind, link, mode in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, link, mode
            info.size = 4 if kind == tarfile.REGTYPE else 0
            made.addfile(info, io.BytesIO(b"text") if info.size else None)
    return path


@pytest.fixture
def old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)


FILE, LINK, HARD = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    "members",
    [
        [("../out", FILE, "", 0o644)],
        [("/tmp/claimhouse-out", FILE, "", 0o644)],
        [("a", LINK, "/etc", 0o777)],
        [("a", LINK, "..", 0o777), ("a/out", FILE, "", 0o644)],
        [("a", HARD, "../out", 0o644)],
        [("a", tarfile.FIFOTYPE, "", 0o644)],
        [("a", tarfile.CHRTYPE, "", 0o644)],
    ],
    ids=["parent", "absolute", "link", "through a link", "hard link", "pipe", "device"],
)
def test_a_member_that_leads_out_of_its_folder_is_refused_by_an_old_python_too(
    old_python: None, tmp_path: Path, members: list[tuple[str, bytes, str, int]]
) -> None:
    made = archive(tmp_path / "a.tar.gz", ("fine", FILE, "", 0o644), *members)
    with pytest.raises(SettingsError, match=r"leads out of its folder|holds a special file"):
        artifacts._unpack(tmp_path / "in" / "it", [made])
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["a.tar.gz", "fine"]


def test_what_stays_in_its_folder_is_unpacked_without_special_bits(old_python: None, tmp_path: Path) -> None:
    made = archive(
        tmp_path / "a.tar.gz",
        ("home", tarfile.DIRTYPE, "", 0o777),
        ("home/bin/run", FILE, "", 0o4755),
        ("home/plain", FILE, "", 0o666),
        ("home/link", LINK, "bin/run", 0o777),
        ("home/bin/up", LINK, "../plain", 0o777),
        ("home/hard", HARD, "home/plain", 0o644),
    )
    artifacts._unpack(tmp_path / "in", [made])
    home = tmp_path / "in" / "home"
    assert {p: (home / p).read_text() for p in ("bin/run", "plain", "link", "bin/up", "hard")} == dict.fromkeys(
        ("bin/run", "plain", "link", "bin/up", "hard"), "text"
    )
    assert [(home / p).stat().st_mode & 0o7777 for p in ("bin/run", "plain")] == [0o755, 0o644]
