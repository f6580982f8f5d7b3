"""Every error that claimhouse raises on purpose: what failed, where, and what to do next.

    ClaimhouseError
    ├── UsageError          the caller asked for something that cannot be (fix and retry)
    │   ├── SettingsError       a setting is missing or malformed
    │   └── QueryError          the SQL is wrong, or not allowed
    ├── SourceError         PostgreSQL said no, or is not as it must be (fix and retry)
    │   ├── NotReady            rights, wal_level, slot or publication are missing
    │   ├── SlotBusy            another process holds the slot
    │   └── SourceLost          the slot or the timeline no longer continues the lake (repair)
    ├── SourceGone          the connection broke (retry)
    ├── StorageGone         the lake's storage does not answer or is full (retry)
    ├── LakeError           the lake is damaged or is not a lake (never retried)
    │   ├── NotALake            nothing, or something else, lies at the location
    │   ├── NewerLake           written by a newer claimhouse
    │   ├── Fenced              another owner has taken this source over (never retried)
    │   └── NotExact            the asked moment is not, or not yet, known exactly
    └── Unsupported         a value or a table that cannot be kept (the table is errored)

Messages are lowercase, name the table and position, never a row's value; `hint` is the next step.
"""

from __future__ import annotations


class ClaimhouseError(Exception):
    """An expected failure. `hint` tells the user what to do next."""

    retry = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(ClaimhouseError):
    """The caller asked for something that cannot be."""


class SettingsError(UsageError):
    """A setting is missing or malformed."""


class QueryError(UsageError):
    """The SQL is wrong, or not allowed in a read-only session."""


class SourceError(ClaimhouseError):
    """PostgreSQL refuses, or is not set up as it must be."""


class NotReady(SourceError):
    """Rights, wal_level, slot or publication are missing; the hint holds the SQL that mends it."""


class SlotBusy(SourceError):
    """Another process reads the slot."""


class SourceLost(SourceError):
    """The slot or the timeline no longer continues what the lake holds."""


class SlotLost(SourceLost):
    """The slot's changes are gone, the history goes on: `claimhouse repair` can bridge it."""


class SourceGone(ClaimhouseError):
    """The connection to PostgreSQL broke; trying again is right."""

    retry = True


class StorageGone(ClaimhouseError):
    """The lake's storage does not answer, or is full; trying again is right."""

    retry = True


class LakeError(ClaimhouseError):
    """The lake cannot be read or written as it stands."""


class NotALake(LakeError):
    """The location holds no lake."""


class NewerLake(LakeError):
    """The lake was written by a newer claimhouse."""


class Fenced(LakeError):
    """Another owner has taken the source over; this writer must stop for good."""


class NotExact(LakeError):
    """The asked moment is not known exactly; the hint names the first possible one."""


class Unsupported(ClaimhouseError):
    """A value or table that cannot be kept even as exact text."""
