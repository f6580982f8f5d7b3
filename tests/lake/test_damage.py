"""A Delta table that lost something of its own log: it is read all the same, or what is missing is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.lake.test_changes import SHAPES, cut, flush, seen
from tests.lake.test_upkeep import KEY, written
from tests.lake.writing import Writer

from claimhouse.errors import LakeError
from claimhouse.lake import delta, upkeep
from claimhouse.lake.lake import Lake, create
from claimhouse.query.session import Session

Damage = Callable[[Path], object]
NEWEST, BEFORE, OLD = "00000000000000000009", "00000000000000000008", "00000000000000000006"


@pytest.fixture(params=["all commits", "only those since the checkpoint"])
def grown(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A lake whose log of claims has ten commits and checkpoints at 4 and 8, the older ones maybe swept."""
    monkeypatch.setattr(delta, "CHECKPOINT_EVERY", 4)
    lake = create(tmp_path / "lake")
    _, record = written(lake, 10)
    if request.param != "all commits":
        upkeep.sweep(lake, "main", record, retention=0)
    return lake


def log_of(lake: Lake) -> Path:
    return Path(lake.location) / KEY / "_delta_log"


def asked(lake: Lake) -> list[int]:
    """The claims that a reader finds who knows nothing of the lake yet."""
    delta._files.cache_clear()
    with Session(lake) as session:
        return session.sql("SELECT id FROM claim ORDER BY id").arrow()["id"].to_pylist()


def written_on(lake: Lake) -> list[int]:
    """The claims after the source's next owner has flushed once more."""
    writer = Writer(lake, *SHAPES)
    mark = writer.tail.last()
    assert mark is not None
    writer.flush = mark.flush, mark.flushed_cut
    cut(writer)
    flush(writer)
    return seen(lake)["claim"]


def pointer(version: int) -> Damage:
    return lambda log: (log / "_last_checkpoint").write_text(f'{{"version":{version},"size":12}}')


def shortened(name: str, share: float) -> Damage:
    return lambda log: (log / name).write_bytes((data := (log / name).read_bytes())[: int(len(data) * share)])


def gone(name: str) -> Damage:
    return lambda log: (log / name).unlink()


@pytest.mark.case("L7")
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(shortened("_last_checkpoint", 0), id="empty"),
        pytest.param(gone("_last_checkpoint"), id="missing"),
        pytest.param(shortened("_last_checkpoint", 0.4), id="cut short"),
        pytest.param(pointer(4), id="stale"),
        pytest.param(pointer(7), id="of a version without one"),
    ],
)
def test_a_table_is_read_and_written_whatever_its_pointer_to_a_checkpoint_says(grown: Lake, damage: Damage) -> None:
    before = asked(grown)
    damage(log_of(grown))
    assert asked(grown) == before
    assert written_on(grown) == [*before, 120, 130]


@pytest.mark.case("L7")
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(shortened(f"{BEFORE}.checkpoint.parquet", 0.5), id="cut short"),
        pytest.param(shortened(f"{BEFORE}.checkpoint.parquet", 0), id="empty"),
        pytest.param(gone(f"{BEFORE}.checkpoint.parquet"), id="missing"),
    ],
)
def test_a_damaged_checkpoint_is_an_error_that_names_the_table(grown: Lake, damage: Damage) -> None:
    damage(log_of(grown))
    for use in (asked, written_on):
        with pytest.raises(LakeError, match=f"{KEY} cannot be opened") as told:
            use(grown)
        assert told.value.hint


@pytest.mark.case("L8")
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(shortened(f"{NEWEST}.json", 0.5), id="cut short"),
        pytest.param(shortened(f"{NEWEST}.json", 0), id="zero bytes"),
        pytest.param(gone(f"{NEWEST}.json"), id="missing"),
    ],
)
def test_a_damaged_newest_commit_is_an_error_that_names_the_table(grown: Lake, damage: Damage) -> None:
    damage(log_of(grown))
    for use in (asked, written_on):
        with pytest.raises(LakeError, match=KEY) as told:
            use(grown)
        assert told.value.hint


def _first_line(log: Path) -> None:
    commit = log / f"{NEWEST}.json"
    commit.write_text(commit.read_text().splitlines()[0])


@pytest.mark.case("L8")
def test_a_commit_that_lost_whole_lines_is_told_by_the_rows_that_are_missing(grown: Lake) -> None:
    """Its JSON is sound, and delta-rs reads it as if it had never added a file."""
    _first_line(log_of(grown))
    with pytest.raises(LakeError, match=f"{KEY} has 9 rows at version 9 and must have 10"):
        asked(grown)


@pytest.mark.case("L8")
@pytest.mark.parametrize("damage", [gone(f"{OLD}.json"), shortened(f"{OLD}.json", 0)], ids=["missing", "zero bytes"])
def test_an_older_commit_is_missed_where_no_checkpoint_stands_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Damage
) -> None:
    monkeypatch.setattr(delta, "CHECKPOINT_EVERY", 99)
    lake = create(tmp_path / "lake")
    written(lake, 10)
    damage(log_of(lake))
    with pytest.raises(LakeError, match=KEY):
        asked(lake)


@pytest.mark.case("L8")
def test_a_current_that_lost_rows_is_not_believed(tmp_path: Path) -> None:
    lake = create(tmp_path / "lake")
    written(lake, 3, folds=True)
    log = Path(lake.location) / "current/main/public/claim/_delta_log"
    commit = log / "00000000000000000002.json"
    commit.write_text("\n".join(line for line in commit.read_text().splitlines() if '"add"' not in line))
    with pytest.raises(LakeError, match=r"current/main/public/claim has 0 rows at version 2 and must have \d"):
        asked(lake)
