"""The copier's own order of things; what it copies is tested through the whole capture."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from claimhouse.lake.lake import create
from claimhouse.lake.registry import Copy
from claimhouse.pipeline.copying import Copier, Job, Missing
from claimhouse.table import Column, Table


def test_a_table_started_again_before_its_last_copy_ended_is_still_watched(tmp_path: Path, monkeypatch: Any) -> None:
    """The cutter hears that a copy must start anew before the copier is done with it, and adds the next one at once."""
    column = Column("id", "id", 1, "integer", 23, -1, "int4", key=1)
    table = Table("s", "public", "t", 1, 1, "key", (column,))
    first, second = (Job("t", table, Copy(number, "", 0), Missing()) for number in (1, 2))
    copier = Copier(create(str(tmp_path / "lake")), "main", contextlib.nullcontext, lambda text: None)
    watched = []

    def copy(conn: Any, jobs: list[Job]) -> None:
        for job in jobs:
            if job is first:
                copier.add(second)
            else:
                watched.append(copier.watches("t"))
                copier.stop()
            copier._ended(job)

    monkeypatch.setattr(copier, "_copy", copy)
    copier.add(first)
    copier.run()
    assert copier.failed is None
    assert watched == [True]
    assert copier.idle and not copier.watches("t")
