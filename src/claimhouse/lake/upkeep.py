"""Upkeep: what keeps a lake that is written every two seconds cheap to read."""

from __future__ import annotations

from claimhouse.lake.flushes import FlushRecord
from claimhouse.lake.lake import Lake
from claimhouse.lake.registry import Registry


def tidy(lake: Lake, source: str, registry: Registry, record: FlushRecord) -> FlushRecord | None:
    """Whatever is due; the new record if versions moved."""
    return None
