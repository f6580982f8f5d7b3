"""A lake of one database, as its own session reads it, and as delta-rs alone does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from claimhouse.lake import current
from claimhouse.lake.lake import changes_key, current_key, open_lake
from claimhouse.lake.snapshot import take
from claimhouse.pipeline import Capture, CaptureOptions
from claimhouse.pipeline.options import Summary
from claimhouse.query.session import Session
from claimhouse.verify import Difference, VerifyOptions, verify

Row = dict[str, Any]


class Lake:
    """`capture` once, `rows` of a query, `differences` from the source."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn, self.location = dsn, str(folder / "lake")

    def capture(self, **options: Any) -> Summary:
        return Capture(CaptureOptions("main", self.dsn, self.location, once=True, **options)).run()

    def rows(self, query: str, at: str | None = None) -> list[tuple[Any, ...]]:
        return sorted(tuple(row.values()) for row in self.asked(query, at))

    def asked(self, query: str, at: str | None = None) -> list[Row]:
        with Session(open_lake(self.location), at=at) as session:
            return session.sql(query).arrow().to_pylist()

    def differences(self) -> list[Difference]:
        return verify(VerifyOptions("main", self.dsn, self.location, wait=20.0)).differences

    def log(self, folder: str) -> list[Row]:
        """A table's change log, read by delta-rs."""
        return self._delta(changes_key("main", folder))

    def folded(self, folder: str) -> list[Row]:
        """The table as `current` keeps it, folded now, read by delta-rs."""
        snapshot = take(open_lake(self.location), "main")
        assert snapshot.record is not None
        current.fold(open_lake(self.location), "main", snapshot.registry, snapshot.record, [folder])
        return self._delta(current_key("main", folder))

    def _delta(self, key: str) -> list[Row]:
        return DeltaTable(str(Path(self.location) / key)).to_pyarrow_dataset().to_table().to_pylist()
