"""The WAL as it comes: one replication connection on a slot, read in large gulps.

The reader waits on the socket, takes all that has come, answers the server's questions, and tells it every ten seconds
up to where a durable cut holds everything: only that, never more. One thread reads; `confirm` may be called from any.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import time
from collections.abc import Sequence

import numpy as np

from claimhouse.change import lsn_text
from claimhouse.postgres import server
from claimhouse.postgres.frames import Raw
from claimhouse.postgres.wires import Libpq, Plain, Wire

__all__ = ["Raw", "Stream"]

FEEDBACK_SECONDS = 10.0
SILENCE_SECONDS = 60
NAP_SECONDS = 0.0002  # a local socket holds about 300 small messages: longer naps would hold a busy server up
LONG_NAP_SECONDS = 0.001
MUCH_BYTES = 2 << 10
_STATUS = struct.Struct(">cqqqqB")
_KEEPALIVE = struct.Struct(">cqqB")  # 'k', end of WAL, send time, whether a reply is asked for
_DATA_HEADER = 25  # 'w', start, end, send time
_EPOCH = 946_684_800_000_000  # 2000-01-01 in microseconds since 1970


class Stream:
    """An open START_REPLICATION on `slot`, from position `start` (0: from where the slot was confirmed).

    `settings` hold for the server's side of it, e.g. logical_decoding_work_mem. `plain=False` reads through libpq even
    where that is not needed. Raises SlotBusy (names the pid), SourceLost (the slot is missing, or its WAL is gone),
    NotReady, SourceGone.
    """

    def __init__(
        self,
        dsn: str,
        slot: str,
        publications: Sequence[str],
        start: int = 0,
        *,
        settings: dict[str, str] | None = None,
        feedback_seconds: float = FEEDBACK_SECONDS,
        plain: bool = True,
    ) -> None:
        self._conn = server.connect(dsn, replication=True, settings=settings)
        self._every = feedback_seconds
        self._confirmed = start
        self._wal_end = 0
        self._hurry = False
        self._told = time.monotonic()
        pgconn = self._conn.pgconn
        try:
            if pgconn.parameter_status(b"server_encoding") == b"SQL_ASCII":
                # As UTF-8 the server would refuse whatever is not, and end the stream of all tables.
                self._conn.execute("SET client_encoding = 'SQL_ASCII'")
            _bound_silence(pgconn.socket)
            wire = Plain if plain and not pgconn.ssl_in_use and not pgconn.used_gssapi else Libpq
            self._wire: Wire = wire(pgconn, _command(slot, publications, start, pgconn.server_version), slot)
        except BaseException:
            self._conn.close()
            raise
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._selector.register(pgconn.socket, selectors.EVENT_READ)

    def read(self, max_wait: float, max_bytes: int = 16 << 20, linger: float = 0.0) -> Raw:
        """All that has come, up to about `max_bytes`; waits at most `max_wait` seconds for the first message.

        With `linger`, gathers for that many seconds after the first message: a walsender sends each by itself, and to
        wake up for each, and to decode each, costs more than the message. Raises SourceGone, or what else ended the
        stream, once all that came before has been returned.
        """
        deadline = time.monotonic() + max_wait
        while True:
            if self._hurry or time.monotonic() - self._told >= self._every:
                self._tell()
            self._gather(max_bytes, linger)
            buffer, starts, ends = self._wire.take()
            data, asked = self._keepalives(buffer, starts)
            ended = self._wire.ended
            if ended and not data.any():
                raise ended
            left = deadline - time.monotonic()
            if data.any() or asked or left <= 0:
                return Raw(buffer, starts[data] + _DATA_HEADER, ends[data], self._wal_end, ended is not None, asked)
            self._wait(min(left, max(0.0, self._told + self._every - time.monotonic())))

    def confirm(self, lsn: int, *, flush: bool = False) -> None:
        """A durable cut holds everything up to `lsn`: the server may forget it. Never goes back.

        The reader tells the server within ten seconds; with `flush`, as soon as it can.
        """
        self._confirmed = max(self._confirmed, lsn)
        if flush:
            self._hurry = True
            with contextlib.suppress(OSError):  # full: it wakes anyhow; closed: no need
                self._waker.send(b"!")

    @property
    def confirmed(self) -> int:
        """The position that the server is told."""
        return self._confirmed

    def close(self) -> None:
        """Tell the confirmed position, if that can still be done, and hang up."""
        if self._conn.closed and self._woken.fileno() < 0:
            return
        if self._wire.ended is None:
            self._tell()
        self._selector.close()
        self._wire.close()
        self._conn.close()
        self._woken.close()
        self._waker.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _gather(self, max_bytes: int, linger: float) -> None:
        """Pull what is there; once something is, go on for `linger` seconds in naps, short ones while much comes."""
        wire = self._wire
        before, until = 0, 0.0
        while True:
            wire.pull(max_bytes)
            now = time.monotonic()
            if not wire.pending or wire.pending >= max_bytes or wire.ended or not linger:
                return
            until = until or now + linger
            if now >= until:
                return
            time.sleep(NAP_SECONDS if wire.pending - before > MUCH_BYTES else min(until - now, LONG_NAP_SECONDS))
            before = wire.pending

    def _keepalives(self, buffer: bytes, starts: np.ndarray) -> tuple[np.ndarray, bool]:
        """Which bodies hold data (bool[n]), and whether one of the others asked for a reply (which is given)."""
        kinds = np.frombuffer(buffer, np.uint8)[starts]
        asked = False
        for place in starts[kinds == ord("k")].tolist():
            _, wal_end, _, reply = _KEEPALIVE.unpack_from(buffer, place)
            self._wal_end = max(self._wal_end, wal_end)
            asked |= bool(reply)
        if asked:
            self._tell()
        return kinds == ord("w"), asked

    def _tell(self) -> None:
        self._hurry = False
        self._told = time.monotonic()
        held = self._confirmed
        self._wire.send(_STATUS.pack(b"r", held, held, held, time.time_ns() // 1000 - _EPOCH, 0))

    def _wait(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._woken:
                self._woken.recv(4096)


def _command(slot: str, publications: Sequence[str], start: int, server_version: int) -> bytes:
    names = ",".join('"' + name.replace('"', '""') + '"' for name in publications).replace("'", "''")
    options = f"proto_version '1', publication_names '{names}'"
    if server_version >= 140000:
        options += ", messages 'true'"
    return f'START_REPLICATION SLOT "{slot}" LOGICAL {lsn_text(start)} ({options})'.encode()


def _bound_silence(descriptor: int) -> None:
    """Have the kernel give a TCP connection up whose packets are not acknowledged: keepalives do not watch those."""
    with socket.socket(fileno=os.dup(descriptor)) as link:
        if link.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_USER_TIMEOUT"):
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_SECONDS * 1000)
