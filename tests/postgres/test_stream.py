"""The replication connection: what it brings, what it tells the server, and how it ends."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psycopg
import pytest
from tests.postgres.streaming import Source, all_changes, as_text, until

from claimhouse.errors import ClaimhouseError, NotReady, SlotBusy, SourceGone, SourceLost
from claimhouse.postgres import frames
from claimhouse.postgres.embedded import Embedded
from claimhouse.postgres.stream import Raw, Stream
from claimhouse.postgres.wires import Plain, refused

both_wires = pytest.mark.parametrize("plain", [True, False], ids=["plain", "libpq"])


@pytest.fixture
def source(postgres: Any) -> Source:
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    return Source(postgres)


def kinds(raws: list[Raw]) -> bytes:
    return b"".join(bytes([raw.buffer[o] for o in raw.offsets]) for raw in raws)


def confirmed(source: Source) -> int:
    row = source.postgres.execute(
        "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = %s", [source.slot]
    )
    return int(row[0][0])


def wait_for(what: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@both_wires
def test_messages_come_whole_and_in_order_in_reads_of_any_size(source: Source, plain: bool) -> None:
    source.postgres.execute("INSERT INTO t SELECT n, repeat('x', n % 500) FROM generate_series(1, 2000) n")
    source.postgres.execute("INSERT INTO t VALUES (0, repeat('y', 5000000)); DELETE FROM t WHERE id < 3")
    end = source.lsn()
    source.postgres.execute("SELECT pg_logical_emit_message(false, 'test', '')")
    for max_bytes in (16 << 20, 20_000):
        with source.open(plain=plain) as stream:
            raws: list[Raw] = []
            deadline = time.monotonic() + 20
            while not raws or raws[-1].wal_end < end:
                assert time.monotonic() < deadline
                raws.append(stream.read(0.2, max_bytes))
        assert kinds(raws).rstrip(b"M") == b"BR" + b"I" * 2000 + b"CBIDDDC"
        rows = [r for raw in raws for r in raw.ends - raw.offsets]
        assert max(rows) > 5_000_000 and min(rows) > 0
        # What came with the server's first answer is kept whole, and so is a message larger than the bound.
        assert all(len(raw.buffer) < max_bytes + 20_000 or len(raw.buffer) > 5_000_000 for raw in raws[1:])


@both_wires
def test_a_read_waits_no_longer_than_asked_and_gathers_while_it_lingers(source: Source, plain: bool) -> None:
    with source.open(plain=plain) as stream:
        list(until(stream, source.lsn() - 1000))
        began = time.monotonic()
        assert len(stream.read(0.15)) == 0
        assert 0.1 < time.monotonic() - began < 1.5

        def write() -> None:
            for n in range(10):
                source.postgres.execute(f"INSERT INTO t VALUES ({n})")
                time.sleep(0.01)

        thread = threading.Thread(target=write)
        thread.start()
        raw = stream.read(10.0, linger=1.0)
        thread.join()
        assert kinds([raw]).count(b"C") == 10


@pytest.mark.case("R1")
@both_wires
def test_the_slot_is_moved_to_what_was_confirmed_and_never_beyond(source: Source, plain: bool) -> None:
    before = confirmed(source)
    source.postgres.execute("INSERT INTO t VALUES (1)")
    middle = source.lsn()
    source.postgres.execute("INSERT INTO t VALUES (2)")
    with source.open(plain=plain, feedback_seconds=0.1) as stream:
        list(until(stream, source.lsn()))
        stream.read(0.3)
        assert confirmed(source) == before
        stream.confirm(middle)
        stream.confirm(before)  # never back
        list(until(stream, source.lsn()))
        stream.read(0.3)
        wait_for(lambda: (stream.read(0.05), confirmed(source))[1] == middle)
    again = source.raws(plain=plain)
    source.resolve = None
    decoder = source.decoder()
    assert [r["id"] for raw in again for c in all_changes(decoder.feed(raw)) for r in as_text(c)] == ["2"]


@both_wires
def test_a_confirmation_from_another_thread_is_told_at_once_if_asked_for(source: Source, plain: bool) -> None:
    source.postgres.execute("INSERT INTO t VALUES (1)")
    with source.open(plain=plain) as stream:  # feedback by itself: only every ten seconds
        list(until(stream, end := source.lsn()))
        timer = threading.Timer(0.1, lambda: stream.confirm(end, flush=True))
        timer.start()
        began = time.monotonic()
        while confirmed(source) < end and time.monotonic() < began + 5:
            stream.read(0.5)
        timer.join()
        assert confirmed(source) == end


@pytest.mark.case("R1")
@both_wires
def test_closing_tells_what_was_confirmed(source: Source, plain: bool) -> None:
    source.postgres.execute("INSERT INTO t VALUES (1)")
    stream = source.open(plain=plain)
    list(until(stream, end := source.lsn()))
    stream.confirm(end)
    stream.close()
    stream.close()
    wait_for(lambda: confirmed(source) == end)


@pytest.mark.case("R7")
@both_wires
def test_a_second_reader_is_refused_and_told_who_reads(source: Source, plain: bool) -> None:
    with source.open() as stream:
        stream.read(0.1)
        (pid,) = source.postgres.execute(
            "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", [source.slot]
        )[0]
        with pytest.raises(SlotBusy, match=rf"process {pid}\b"):
            Stream(source.postgres.dsn, source.slot, ["p"], plain=plain)


@pytest.mark.case("R6")
@both_wires
def test_a_slot_that_is_not_there_is_lost(source: Source, plain: bool) -> None:
    with pytest.raises(SourceLost, match="no_such_slot"):
        Stream(source.postgres.dsn, "no_such_slot", ["p"], plain=plain)


@both_wires
def test_a_publication_that_is_not_there_is_named_as_such(source: Source, plain: bool) -> None:
    """From PostgreSQL 18 on the server leaves its tables out instead: `coverage` is what notices it there."""
    told = int(source.postgres.execute("SHOW server_version_num")[0][0]) < 180000
    source.postgres.execute("INSERT INTO t VALUES (1)")
    with (
        Stream(source.postgres.dsn, source.slot, ["other"], plain=plain) as stream,
        pytest.raises(NotReady, match="other") if told else nullcontext(),
    ):
        decoder = source.decoder()
        assert [all_changes(decoder.feed(raw)) for raw in until(stream, source.lsn())] in ([], [[]])


@pytest.mark.case("R11")
@both_wires
def test_a_role_without_the_right_is_told_so(source: Source, plain: bool) -> None:
    with pytest.raises(NotReady):
        Stream(source.postgres.role("LOGIN"), source.slot, ["p"], plain=plain)


@pytest.mark.case("R5")
@both_wires
def test_when_the_server_ends_it_what_came_before_is_still_read(source: Source, plain: bool) -> None:
    source.postgres.execute("INSERT INTO t VALUES (1)")
    with source.open(plain=plain) as stream:
        time.sleep(0.3)
        source.postgres.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
        time.sleep(0.3)
        raws: list[Raw] = []
        with pytest.raises(SourceGone) as caught:
            while True:
                raws.append(stream.read(1.0))
        assert kinds(raws)[:4] == b"BRIC" and caught.value.retry
        with pytest.raises(SourceGone):
            stream.read(0.1)


@pytest.mark.case("R6")
@both_wires
def test_a_slot_whose_wal_was_removed_is_lost(source: Source, plain: bool) -> None:
    execute = source.postgres.execute
    execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    execute("SELECT pg_reload_conf()")
    try:
        for _ in range(4):
            execute("SELECT pg_logical_emit_message(true, 'test', 'x')")
            execute("SELECT pg_switch_wal()")
        execute("CHECKPOINT")
        with pytest.raises(SourceLost, match=source.slot):
            source.open(plain=plain)
    finally:
        execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        execute("SELECT pg_reload_conf()")


def test_publications_of_any_name_are_read_together(source: Source) -> None:
    source.postgres.execute("CREATE TABLE other (id int PRIMARY KEY); DROP PUBLICATION p")
    odd = 'it\'s "odd", really'
    source.postgres.execute(
        'CREATE PUBLICATION "it\'s ""odd"", really" FOR TABLE other; CREATE PUBLICATION p FOR TABLE t'
    )
    source.postgres.execute("INSERT INTO t VALUES (1); INSERT INTO other VALUES (1)")
    with Stream(source.postgres.dsn, source.slot, [odd, "p"]) as stream:
        assert kinds(list(until(stream, source.lsn()))).count(b"I") == 2


@pytest.mark.case("R10")
def test_a_shutdown_asks_for_a_confirmation_and_then_ends(tmp_path: Path) -> None:
    with Embedded(tmp_path / "pg", fast=True) as server:
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("CREATE TABLE t (id int PRIMARY KEY)")
            conn.execute("CREATE PUBLICATION p FOR TABLE t")
            conn.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
        with Stream(server.dsn, "s", ["p"]) as stream:
            stream.read(0.2)
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            asked = False
            with pytest.raises(SourceGone):
                for _ in range(200):
                    raw = stream.read(0.1)
                    asked |= raw.asked
                    if raw.asked:
                        stream.confirm(raw.wal_end, flush=True)
            stopping.join(20)
            assert asked and not stopping.is_alive()


class Fake:
    """A server's end of a connection, and the wire that has taken over the other."""

    def __init__(self, first: bytes = frames.frame(b"W", b"\0\0\0")) -> None:
        self.far, near = socket.socketpair()
        self.far.sendall(first)
        self.wire = Plain(SimpleNamespace(socket=near.fileno()), b"START", "slot")  # type: ignore[arg-type]
        near.close()

    def bodies(self, max_bytes: int = 1 << 20) -> list[bytes]:
        self.wire.pull(max_bytes)
        buffer, starts, ends = self.wire.take()
        return [buffer[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]


@pytest.mark.parametrize("seed", range(5))
def test_frames_torn_anywhere_come_out_whole(seed: int) -> None:
    rng = random.Random(seed)
    sent = [rng.randbytes(rng.choice([0, 1, 5, 30, 3000])) for _ in range(300)]
    notice = frames.frame(b"N", b"SNOTICE\0\0")
    stream = b"".join(frames.frame(b"d", body) + (notice if rng.random() < 0.1 else b"") for body in sent)
    fake = Fake(frames.frame(b"N", b"SNOTICE\0\0") + frames.frame(b"W", b"\0\0\0") + stream[:7])
    found: list[bytes] = []
    place = 7
    while place < len(stream):
        step = rng.choice([1, 2, 4, 7, 100, 5000])
        fake.far.sendall(stream[place : place + step])
        place += step
        found += fake.bodies(rng.choice([1, 50, 1 << 20]))
    for _ in range(50_000):
        found += fake.bodies()
    assert found == sent and fake.wire.pending == 0


def test_what_the_server_is_sent_are_whole_frames() -> None:
    fake = Fake()
    assert fake.far.recv(100) == b"Q\0\0\0\x0aSTART\0"
    for n in range(3000):
        fake.wire.send(struct.pack(">q", n))
    received = b""
    while len(received) < 3000 * 13:
        fake.wire.pull(10)  # sends what the socket would not take
        with suppress(BlockingIOError):
            received += fake.far.recv(4096, socket.MSG_DONTWAIT)
    bodies = [received[a + 5 : b] for a, b in frames.spans(received)]
    assert bodies == [struct.pack(">q", n) for n in range(3000)]


def test_an_error_in_the_stream_ends_it_after_the_data() -> None:
    fake = Fake()
    error = b"SERROR\0C57P01\0Mterminating\0\0"
    fake.far.sendall(frames.frame(b"d", b"w1") + frames.frame(b"E", error))
    fake.far.close()
    assert fake.bodies() == [b"w1"]
    assert isinstance(fake.wire.ended, SourceGone) and "terminating" in str(fake.wire.ended)


@pytest.mark.case("R5")
def test_a_link_that_breaks_mid_frame_ends_the_stream() -> None:
    fake = Fake()
    fake.far.sendall(frames.frame(b"d", b"w1") + b"d\0\0\0\x50half")
    fake.far.close()
    assert fake.bodies() == [b"w1"]
    fake.wire.pull(100)
    assert isinstance(fake.wire.ended, SourceGone)


@pytest.mark.parametrize(
    ("state", "message", "starting", "error"),
    [
        ("55006", 'replication slot "s_77" is active for PID 1234', True, SlotBusy),
        ("42704", 'replication slot "s_77" does not exist', True, SourceLost),
        ("42704", 'publication "p" does not exist', False, NotReady),
        ("55000", 'can no longer access replication slot "s_77"', True, SourceLost),
        ("55000", "logical decoding requires wal_level >= logical", True, NotReady),
        ("58P01", "requested WAL segment has already been removed", False, SourceLost),
        ("42501", "permission denied", True, NotReady),
        ("57P01", "terminating connection due to administrator command", False, SourceGone),
        ("XX000", "something else", False, ClaimhouseError),
    ],
)
def test_each_refusal_is_the_error_that_says_what_to_do(
    state: str, message: str, starting: bool, error: type[ClaimhouseError]
) -> None:
    said = refused(state, message, "", "s_77", starting=starting)
    assert type(said) is error or (error is ClaimhouseError and not said.retry)
    assert "s_77" in str(said) or error is SourceGone
    if error is SlotBusy:
        assert "1234" in str(said)


def test_reads_are_joined_and_parted_again() -> None:
    def raw(*bodies: bytes, **more: Any) -> Raw:
        ends = np.cumsum([len(b) for b in bodies], dtype=np.int64)
        return Raw(b"".join(bodies), ends - np.array([len(b) for b in bodies], np.int64), ends, **more)

    def told(raw: Raw) -> list[bytes]:
        return [bytes(raw.buffer[a:b]) for a, b in zip(raw.offsets.tolist(), raw.ends.tolist(), strict=True)]

    one, two = raw(b"a", b"bb", wal_end=5), raw(b"ccc", b"", b"d", wal_end=3, closed=True, asked=True)
    joined = Raw.join([one, raw(), two])
    assert told(joined) == [b"a", b"bb", b"ccc", b"", b"d"]
    assert (joined.wal_end, joined.closed, joined.asked) == (5, True, True)
    assert told(joined.part(1, 3)) == [b"bb", b"ccc"] and told(joined.part(2, 2)) == []
    assert told(Raw.join([joined.part(0, 2), joined.part(2, 5)])) == told(joined)
