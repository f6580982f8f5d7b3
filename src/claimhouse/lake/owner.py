"""Who may write a source: the highest epoch in `control/owner/<source>/`.

Epochs grow by one and each is created only if absent, so that whoever holds epoch n is fenced exactly when n + 1
exists: one look-up, cheap enough to make after every append. A zombie (paused, cut off, thought dead) finds out there,
before it confirms anything to PostgreSQL.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from dataclasses import dataclass

from claimhouse.errors import Fenced
from claimhouse.lake.lake import Lake, check_source, flushed_folder, owner_folder, registry_folder, tail_folder
from claimhouse.lake.storage import Exists


@dataclass(frozen=True, slots=True)
class Owner:
    """The right to write one source of one lake, until somebody claims it anew."""

    lake: Lake
    source: str
    epoch: int

    def check(self) -> None:
        """Raises Fenced once another owner has claimed the source."""
        if self.lake.store.exists(_key(self.source, self.epoch + 1)):
            raise Fenced(
                f"source {self.source} has been taken over (this was owner {self.epoch})",
                hint="another run writes this lake; stop one of them",
            )


def claim(lake: Lake, source: str) -> Owner:
    """Become the owner of a source; whoever was it before is fenced. Raises UsageError, StorageGone."""
    check_source(source)
    card = {"host": socket.gethostname(), "pid": os.getpid(), "nonce": uuid.uuid4().hex, "at": time.time_ns() // 1000}
    epoch = newest(lake, source) + 1
    while True:
        try:
            lake.store.put_new(_key(source, epoch), json.dumps(card).encode())
            break
        except Exists:
            epoch += 1
    for folder in (tail_folder(source), flushed_folder(source), registry_folder(source)):
        lake.store.sweep(folder)
    return Owner(lake, source, epoch)


def newest(lake: Lake, source: str) -> int:
    """The epoch of the present owner, 0 where there was none."""
    names = lake.store.list(owner_folder(source))
    return int(names[-1].partition(".")[0]) if names else 0


def _key(source: str, epoch: int) -> str:
    return f"{owner_folder(source)}/{epoch:012d}.json"
