"""What a capture is asked to do, and what it came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class CaptureOptions:
    """What to capture and where to. `tables` are patterns as `find_tables` takes them; times are seconds."""

    source: str
    dsn: str
    location: str
    storage_options: Mapping[str, str] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    publication: str | None = None
    slot: str | None = None
    freshness: float = 0.025
    flush_interval: float = 2.0
    once: bool = False
    spill_bytes: int = 32 << 20
    repair: bool = False  # where the slot's changes are lost, begin with a new slot and copy the tables anew
    generated: bool = True  # stored generated columns too, where the server can send them


@dataclass(slots=True)
class Summary:
    """What a run came to. `held_bytes` is the WAL that the server keeps for the slot from now on."""

    source: str
    cuts: int = 0
    transactions: int = 0
    rows: int = 0
    copied_rows: int = 0
    flushes: int = 0
    end_lsn: int = 0
    cut: int = 0
    slot: str = ""
    errored: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    held_bytes: int | None = None
    seconds: float = 0.0
