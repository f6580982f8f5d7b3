"""What people decided about claims with hits: who, when, what, why. Append-only, in the lake's control area.

One small JSON object per decision under `control/dispositions/`, made by a conditional create, numbered without gaps.
The newest of a claim counts; none is ever changed, and nothing is written to the source. A decision never removes a
hit, and a hit never decides.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from claimhouse.errors import LakeError, UsageError
from claimhouse.lake.lake import Lake
from claimhouse.lake.storage import Exists

FOLDER = "control/dispositions"
# what can be decided, and how it reads
VERDICTS = {
    "open": "To be looked at",
    "watching": "Under review",
    "referred": "Referred to the special investigation unit",
    "cleared": "Cleared: the indicators have an ordinary explanation",
}
LONGEST = 2000  # characters of a note


@dataclass(frozen=True, slots=True)
class Disposition:
    """One decision on a claim (its number). `score` (0 to 100) and `lsn` tell what the decider saw."""

    claim: str
    verdict: str
    who: str
    at: str
    note: str = ""
    score: float | None = None
    lsn: str = ""

    @property
    def title(self) -> str:
        return VERDICTS.get(self.verdict, self.verdict)


class Dispositions:
    """All decisions of a lake; objects that were read are kept, so only new ones are fetched."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._read: dict[str, Disposition] = {}
        self._lock = threading.Lock()

    def all(self) -> list[Disposition]:
        """Every decision, oldest first. Raises LakeError for a damaged object."""
        with self._lock:
            names = self.lake.store.list(FOLDER)
            for name in names:
                if name not in self._read:
                    self._read[name] = self._load(name)
            return [self._read[name] for name in names]

    def of(self, claim: str) -> list[Disposition]:
        """A claim's decisions, newest first."""
        return [d for d in self.all() if d.claim == claim][::-1]

    def newest(self) -> dict[str, Disposition]:
        """The decision that counts, by claim."""
        return {d.claim: d for d in self.all()}

    def add(
        self, claim: str, verdict: str, who: str, note: str = "", *, score: float | None = None, lsn: str = ""
    ) -> Disposition:
        """Write a decision. Raises UsageError, StorageGone."""
        if verdict not in VERDICTS:
            raise UsageError("there is no such disposition", hint=f"one of: {', '.join(VERDICTS)}")
        if not claim or not who.strip():
            raise UsageError("a disposition names its claim and who made it")
        if len(note) > LONGEST:
            raise UsageError(f"a note has at most {LONGEST:,} characters")
        at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        made = Disposition(claim, verdict, who.strip(), at, note.strip(), score, lsn)
        data = json.dumps(asdict(made), ensure_ascii=False, separators=(",", ":")).encode()
        names = self.lake.store.list(FOLDER)
        number = int(names[-1].removesuffix(".json")) + 1 if names else 1
        while True:
            try:
                self.lake.store.put_new(f"{FOLDER}/{number:020d}.json", data)
                return made
            except Exists:
                number += 1

    def _load(self, name: str) -> Disposition:
        try:
            fields: dict[str, Any] = json.loads(self.lake.store.get(f"{FOLDER}/{name}"))
            return Disposition(**fields)
        except (KeyError, ValueError, TypeError) as error:
            raise LakeError(f"{FOLDER}/{name} is damaged", hint="restore it from a copy") from error
