"""A lake: a location whose `control/lake.json` says that it is one, in which format, and under which id.

Everything else in the lake is found by the fixed names below (docs/lake-format.md).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from claimhouse.errors import NewerLake, NotALake, UsageError
from claimhouse.lake.storage import Exists, Store, open_store
from claimhouse.table import encode_name

FORMAT = 1
LAKE = "control/lake.json"
TRANSACTIONS = "control/transactions"
FLUSHES = "control/flushes"


@dataclass(frozen=True, slots=True)
class Lake:
    """An open lake. Readers and writers share it between threads.

    It is the same as another with its id at its location: a copy of a lake has the id, but files of its own.
    """

    store: Store = field(compare=False)
    lake_id: str
    location: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def sources(self) -> list[str]:
        """The names of the sources that somebody has owned, sorted."""
        return self.store.folders("control/owner")

    def streamed(self, source: str) -> bool:
        """Whether the distributed runtime captures this source: then slot and tail are Debezium's and Spark's."""
        return bool(self.store.list(f"{tail_events_key(source)}/_delta_log"))

    def app_id(self, source: str, what: str) -> str:
        """The Delta application id of one source's writes to one table."""
        return f"claimhouse:{self.lake_id}:{source}:{what}"


def owner_folder(source: str) -> str:
    return f"control/owner/{source}"


def registry_folder(source: str) -> str:
    return f"control/registry/{source}"


def flushed_folder(source: str) -> str:
    return f"control/flushed/{source}"


def tail_folder(source: str) -> str:
    return f"tail/{source}"


def tail_events_key(source: str) -> str:
    """The place of the distributed runtime's own tail table."""
    return f"tail_events/{source}"


def changes_key(source: str, folder: str) -> str:
    return f"changes/{source}/{folder}"


def current_key(source: str, folder: str) -> str:
    return f"current/{source}/{folder}"


def bases_folder(source: str, folder: str) -> str:
    return f"bases/{source}/{folder}"


_TAKEN = ("memory", "system", "temp")  # what DuckDB calls catalogs of its own


def check_source(source: str) -> str:
    """A source's name is used as a folder's: small letters, digits and underscores. Raises UsageError."""
    if not source or encode_name(source) != source or source in _TAKEN:
        raise UsageError(f"a source cannot be called {source!r}", hint="use a-z, 0-9 and _, starting with a letter")
    return source


def create(location: str | os.PathLike[str], options: Mapping[str, str] | None = None) -> Lake:
    """Make a lake there, or open the one that is there. Raises NewerLake, StorageGone."""
    store = open_store(location, options)
    made = {"format": FORMAT, "lake_id": uuid.uuid4().hex, "created_at": time.time_ns() // 1000}
    if not store.exists(LAKE):
        with contextlib.suppress(Exists):  # somebody else was first; theirs counts
            store.put_new(LAKE, json.dumps(made).encode())
    return open_lake(location, options, store=store)


def open_lake(
    location: str | os.PathLike[str], options: Mapping[str, str] | None = None, *, store: Store | None = None
) -> Lake:
    """The lake at a location. Raises NotALake, NewerLake, StorageGone."""
    store = store or open_store(location, options)
    try:
        card = json.loads(store.get(LAKE))
        version, lake_id = int(card["format"]), str(card["lake_id"])
    except KeyError:
        raise NotALake(f"{store.location} is no lake", hint="check the path; `claimhouse run` makes one") from None
    except (ValueError, TypeError):
        raise NotALake(f"{store.location}/{LAKE} cannot be read", hint="restore this file from a copy") from None
    if version > FORMAT:
        raise NewerLake(f"the lake has format {version}, this claimhouse knows {FORMAT}", hint="upgrade claimhouse")
    return Lake(store, lake_id, store.location, dict(options or {}))
