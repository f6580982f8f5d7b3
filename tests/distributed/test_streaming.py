"""The tail table's writer: a batch is appended once, whatever is repeated, and cuts hold whole transactions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from claimhouse.distributed import streaming
from claimhouse.distributed.events import ERA, TAIL
from claimhouse.distributed.streaming import Streaming
from claimhouse.distributed.tail import TailEvents
from claimhouse.lake.lake import Lake, create
from claimhouse.postgres.server import Xids

Events = list[dict[str, Any]]


class Parsed:
    """What stands for a parsed micro-batch."""

    def __init__(self, events: pa.Table) -> None:
        self.events = events

    def toArrow(self) -> pa.Table:
        return self.events


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    def parse(raw: Events) -> Parsed:
        return Parsed(pa.Table.from_pylist(raw, TAIL).drop_columns(["era", "batch"]))

    monkeypatch.setattr(streaming, "parse", parse)
    return create(tmp_path / "lake")


def begun(lake: Lake, cluster: str = "c") -> Streaming:
    made = Streaming(lake, "main", lambda: None)
    made.prepare(0, cluster)
    return made


def row(offset: int, xid: int, seq: int) -> dict[str, Any]:
    place = {"kind": "row", "topic": "t", "part": 0, "offset": offset}
    return {**place, "schema": "public", "name": "t", "xid": xid, "seq": seq, "op": "c", "at": 5}


def end(offset: int, xid: int, events: int) -> dict[str, Any]:
    place = {"kind": "end", "topic": "x", "part": 0, "offset": offset}
    return {**place, "xid": xid, "end_lsn": xid * 10, "events": events, "at": xid * 1000}


FIRST = [row(0, 1, 1), row(1, 2, 1), end(0, 1, 1)]
SECOND = [end(1, 2, 2), row(2, 2, 2)]


def held(lake: Lake) -> list[tuple[int, int]]:
    events = TailEvents(lake, "main", Xids(1000)).after(0)
    assert events is not None
    return [(r["end_lsn"], r["seq"]) for r in events.rows.to_pylist()]


@pytest.mark.case("K3")
def test_a_transaction_that_straddles_two_batches_is_cut_with_the_second(lake: Lake) -> None:
    stream = begun(lake)
    stream.append(FIRST, 0)  # type: ignore[arg-type]
    assert (stream.progress.end_lsn, stream.progress.waiting) == (10, 1)
    assert held(lake) == [(10, 1)]
    stream.append(SECOND, 1)  # type: ignore[arg-type]
    assert stream.progress.end_lsn == 20
    assert held(lake) == [(10, 1), (20, 1), (20, 2)]


@pytest.mark.case("K3", "L1")
def test_a_batch_repeated_after_a_crash_appends_nothing(lake: Lake) -> None:
    begun(lake).append(FIRST, 0)  # type: ignore[arg-type]
    again = begun(lake)
    again.append(FIRST, 0)  # type: ignore[arg-type]
    assert again.progress.batch == 1
    again.append(SECOND, 1)  # type: ignore[arg-type]
    assert held(lake) == [(10, 1), (20, 1), (20, 2)]


@pytest.mark.case("K3")
def test_a_lost_checkpoint_reads_everything_again_and_doubles_nothing(lake: Lake) -> None:
    stream = begun(lake)
    stream.append(FIRST, 0)  # type: ignore[arg-type]
    stream.append(SECOND, 1)  # type: ignore[arg-type]
    again = begun(lake)
    again.append([*FIRST, *SECOND, row(3, 3, 1), end(2, 3, 1)], 0)  # type: ignore[arg-type]
    assert held(lake) == [(10, 1), (20, 1), (20, 2), (30, 1)]


@pytest.mark.case("K2", "K3")
def test_another_broker_that_is_sent_the_same_transactions_doubles_nothing(lake: Lake) -> None:
    begun(lake).append([*FIRST, *SECOND], 0)  # type: ignore[arg-type]
    again = begun(lake, cluster="another")
    again.append([row(0, 2, 1), row(1, 2, 2), end(0, 2, 2), row(2, 3, 1), end(1, 3, 1)], 0)  # type: ignore[arg-type]
    assert held(lake) == [(10, 1), (20, 1), (20, 2), (30, 1)]


def test_flushed_partitions_go_and_the_rest_stays(lake: Lake) -> None:
    stream = begun(lake)
    stream.append(FIRST, 0)  # type: ignore[arg-type]
    stream.progress.batch = 2 * ERA
    stream.append(SECOND, 1)  # type: ignore[arg-type]
    stream.drop(10)  # transaction 2 began in the first partition
    assert held(lake) == [(10, 1), (20, 1), (20, 2)]
    stream.drop(20)
    assert begun(lake).progress.batch == 2 * ERA + 1
    events = TailEvents(lake, "main", Xids(1000)).after(10)
    assert events is not None and events.rows.column("seq").to_pylist() == [2]


@pytest.mark.case("K4")
def test_a_message_that_cannot_be_read_is_counted_and_holds_up_its_own_transaction(lake: Lake) -> None:
    stream = begun(lake)
    stream.append([*FIRST[:1], {"kind": "dead", "topic": "t", "part": 0, "offset": 1}, *FIRST[2:], end(1, 2, 1)], 0)  # type: ignore[arg-type]
    assert (stream.progress.dead, stream.progress.end_lsn, held(lake)) == (1, 10, [(10, 1)])
    stream.append([row(2, 3, 1), end(2, 3, 1)], 1)  # type: ignore[arg-type]
    assert stream.progress.end_lsn == 10  # nothing is cut that would show transaction 2 without its row
    stream.append([row(3, 2, 1)], 2)  # type: ignore[arg-type]
    assert held(lake) == [(10, 1), (20, 1), (30, 1)]
