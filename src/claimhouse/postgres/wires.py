"""Two ways to read one replication connection; both give many CopyData bodies in one buffer.

`Plain` takes the socket over from libpq once that has connected, and reads a megabyte at a time: a tenth of the CPU of
one libpq call per message. `Libpq` asks libpq for each message: where the connection is encrypted, only libpq can read.
Neither blocks, and neither raises once it is open: what ended the connection is in `ended`, after all that came before.
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import time
from typing import Protocol

import numpy as np
import psycopg
from psycopg import pq

from claimhouse.errors import ClaimhouseError, NotReady, SlotBusy, SourceError, SourceGone, SourceLost
from claimhouse.postgres import frames

Bodies = tuple[bytes, np.ndarray, np.ndarray]  # a buffer; where the CopyData bodies in it start and end (int64[n])

_GULP = 1 << 20
_START_SECONDS = 60.0
_NOTHING: Bodies = (b"", np.empty(0, np.int64), np.empty(0, np.int64))


class Wire(Protocol):
    """`pending`: bytes that came and are not taken; `ended`: why nothing more will come, None while it may."""

    pending: int
    ended: ClaimhouseError | None

    def pull(self, max_bytes: int) -> None:
        """Receive what is there, until `max_bytes` are pending; never waits."""
        ...

    def take(self) -> Bodies:
        """All whole messages that are pending."""
        ...

    def send(self, body: bytes) -> None:
        """Send one CopyData message, as soon as the socket takes it."""
        ...

    def close(self) -> None: ...


class Plain:
    """The socket of a libpq connection, which is idle and only keeps it open from now on."""

    def __init__(self, pgconn: pq.abc.PGconn, command: bytes, slot: str) -> None:
        self._socket = socket.socket(fileno=os.dup(pgconn.socket))
        self._socket.setblocking(False)
        self._slot = slot
        self._gulp = memoryview(bytearray(_GULP))
        self._chunks: list[bytes] = []
        self._unsent = b""
        self._need = 5  # bytes that make at least one whole frame
        self.pending = 0
        self.ended: ClaimhouseError | None = None
        try:
            self._write(frames.frame(b"Q", command + b"\0"))
            self._await_copy()
        except BaseException:
            self.close()
            raise

    def _await_copy(self) -> None:
        """Read up to CopyBothResponse, or raise what the server says instead."""
        deadline = time.monotonic() + _START_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                selector.select(deadline - time.monotonic())
                self.pull(_GULP)
                received = b"".join(self._chunks)
                for start, end in frames.spans(received):
                    kind = received[start : start + 1]
                    if kind == b"W":
                        self._keep(received[end:])
                        return
                    if kind == b"E":
                        raise refused(*frames.fields(received[start + 5 : end]), self._slot, starting=True)
                if self.ended:
                    raise self.ended
        raise gone(f"no answer within {_START_SECONDS:.0f} s")

    def pull(self, max_bytes: int) -> None:
        if self._unsent:
            self._write(b"")
        while self.ended is None and (wanted := max(max_bytes, self._need) - self.pending) > 0:
            try:
                count = self._socket.recv_into(self._gulp[:wanted])
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.ended = gone(error.strerror or "a socket error")
                return
            if not count:
                self.ended = gone("the server closed it")
                return
            self._chunks.append(bytes(self._gulp[:count]))
            self.pending += count

    def take(self) -> Bodies:
        if self.pending < self._need:
            return _NOTHING
        received = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        found, rest = frames.split(received)
        self._keep(received[rest:])
        edges = np.array([*found, rest], np.int64)
        copied = np.frombuffer(received, np.uint8)[edges[:-1]] == ord("d")
        for start, end in zip(edges[:-1][~copied].tolist(), edges[1:][~copied].tolist(), strict=True):
            self._other(received[start : start + 1], received[start + 5 : end])
        return received, edges[:-1][copied] + 5, edges[1:][copied]

    def send(self, body: bytes) -> None:
        self._write(frames.frame(b"d", body))

    def close(self) -> None:
        self._socket.close()

    def _keep(self, rest: bytes) -> None:
        self._chunks = [rest] if rest else []
        self.pending = len(rest)
        self._need = frames.size(rest)

    def _other(self, kind: bytes, body: bytes) -> None:
        """Anything but data: an error, the end of the stream, a notice."""
        if kind == b"E":
            self.ended = refused(*frames.fields(body), self._slot, starting=False)
        elif kind in (b"c", b"C"):
            self.ended = self.ended or gone("the server ended the stream")

    def _write(self, data: bytes) -> None:
        self._unsent += data
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            pass  # what came before the end is still to be read: reading tells


class Libpq:
    """One libpq call per message."""

    def __init__(self, pgconn: pq.abc.PGconn, command: bytes, slot: str) -> None:
        self._pgconn = pgconn
        self._slot = slot
        self._bodies: list[memoryview] = []
        self._sizes: list[int] = []
        self.pending = 0
        self.ended: ClaimhouseError | None = None
        result = pgconn.exec_(command)
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise self._said(result, starting=True)
        pgconn.nonblocking = 1

    def pull(self, max_bytes: int) -> None:
        if self.ended:
            return
        try:
            self._pgconn.flush()
            while True:
                self._drain(max_bytes)
                before = self.pending
                if self.ended or before >= max_bytes:
                    return
                self._pgconn.consume_input()
                self._drain(max_bytes)
                if self.pending == before:
                    return
        except psycopg.OperationalError as error:
            self.ended = gone(str(error).strip().partition("\n")[0])

    def _drain(self, max_bytes: int) -> None:
        read, add, measure = self._pgconn.get_copy_data, self._bodies.append, self._sizes.append
        pending = self.pending
        while pending < max_bytes:
            size, body = read(1)
            if size <= 0:
                if size < 0:
                    self._finish()
                break
            add(body)
            measure(size)
            pending += size
        self.pending = pending

    def _finish(self) -> None:
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            self.ended = self._said(result, starting=False)
        else:
            self.ended = gone("the server ended the stream")

    def _said(self, result: pq.abc.PGresult, *, starting: bool) -> ClaimhouseError:
        fields = (pq.DiagnosticField.SQLSTATE, pq.DiagnosticField.MESSAGE_PRIMARY, pq.DiagnosticField.MESSAGE_HINT)
        state, message, hint = ((result.error_field(f) or b"").decode("utf-8", "replace") for f in fields)
        return refused(state, message, hint, self._slot, starting=starting)

    def take(self) -> Bodies:
        ends = np.cumsum(np.array(self._sizes, np.int64))
        bodies = b"".join(self._bodies), ends - np.array(self._sizes, np.int64), ends
        self._bodies, self._sizes, self.pending = [], [], 0
        return bodies

    def send(self, body: bytes) -> None:
        try:
            self._pgconn.put_copy_data(body)
            self._pgconn.flush()
        except psycopg.OperationalError:
            pass  # reading tells

    def close(self) -> None:
        pass


def gone(reason: str) -> SourceGone:
    return SourceGone(f"the replication connection broke: {reason}", hint="it is tried again")


def refused(state: str, message: str, hint: str, slot: str, *, starting: bool) -> ClaimhouseError:
    """Our error for what the server said to START_REPLICATION (`starting`), or later in the stream."""
    if state == "55006":
        pids = re.findall(r"\d+", message.replace(slot, ""))
        holder = f"process {pids[-1]}" if pids else "another process"
        return SlotBusy(
            f"slot {slot} is read by {holder} of the server",
            hint="stop the other reader, or give this one another --source name",
        )
    if starting and state == "42704":
        return SourceLost(
            f"slot {slot} does not exist", hint="claimhouse repair makes a new one and brings back the gap"
        )
    if state == "58P01" or (starting and state == "55000" and "wal_level" not in message):
        return SourceLost(f"slot {slot} is lost: {message}", hint=hint or "claimhouse repair makes a new one")
    if state in ("42704", "42501", "55000", "0A000", "42601"):
        return NotReady(
            f"slot {slot} cannot be read: {message}", hint=hint or "claimhouse doctor names what is missing"
        )
    if state[:2] in ("08", "57", "53", "40"):
        return gone(message)
    said = f"SQLSTATE {state}" if state[:2] in ("22", "23") else message
    if state == "22021":
        hint = (
            "the database's encoding is SQL_ASCII, and a row holds bytes that are no UTF-8: the server sends no further"
        )
    return SourceError(f"reading slot {slot} failed: {said}", hint=hint or None)
