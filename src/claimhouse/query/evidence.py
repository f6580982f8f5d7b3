"""What vouches for an answer in a file: what was asked, as of which position, when and by whom, and the file's hash.

The same question at the same positions gives the same rows for ever; the hash shows that the file is still that answer.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from claimhouse.query.session import Session


def evidence(session: Session, sql: str, file: Path, *, rows: int, form: str, who: str) -> dict[str, Any]:
    """For JSON. `tables` are those that were read; `warnings` what of them was not exact."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    positions = {
        source: {"lsn": str(position), "incarnation": position.incarnation}
        for source, position in session.positions.items()
    }
    return {
        "query": sql,
        "asked_at": session.at or "now",
        "as_of": positions,
        "ask_again": {"at": ",".join(_again(positions))},
        "tables": ["/".join((t.source, t.schema, t.name)) for t in session.read],
        "warnings": list(session.warnings),
        "rows": rows,
        "file": {"name": file.name, "format": form, "bytes": file.stat().st_size, "sha256": digest},
        "lake": session.lake.lake_id,
        "who": who,
        "when": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "claimhouse": version("claimhouse"),
    }


def _again(positions: dict[str, dict[str, Any]]) -> list[str]:
    """What `--at` takes: a position, with the source's name where there are several."""
    named = len(positions) > 1
    return [f"{source}={p['lsn']}" if named else p["lsn"] for source, p in positions.items()]
