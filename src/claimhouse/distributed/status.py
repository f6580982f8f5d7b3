"""Every hop of the stack, whether it is well, how far it lags, and what to do where it is not.

postgres → connect (Debezium) → kafka → spark (cut) → lake (flush) → trino (views)
"""

from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from claimhouse.distributed.connector import Connect
from claimhouse.distributed.topology import Topology
from claimhouse.distributed.trino import Trino
from claimhouse.errors import ClaimhouseError

STALE = 15.0  # seconds after which the job's word no longer counts


@dataclass(frozen=True, slots=True)
class Hop:
    """One hop. `lag` is in seconds, of what this hop adds; None where it has none of its own."""

    name: str
    ok: bool
    says: str
    lag: float | None = None
    do: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def hops(topology: Topology, job_file: Path) -> list[Hop]:
    """All hops, in the order in which a change passes them."""
    job = _job(job_file)
    return [
        *(_listening(topology, name) for name in ("postgres", "kafka", "s3", "glue")),
        _connector(topology),
        _streaming(job),
        _lake(job, topology),
        _trino(topology, job),
    ]


def _listening(topology: Topology, name: str) -> Hop:
    if name in ("s3", "glue") and (topology.s3_url if name == "s3" else topology.glue_url) is None:
        return Hop(name, True, "AWS")
    host, _, port = topology.at[name].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return Hop(name, True, f"listens at {topology.at[name]}")
    except OSError:
        return Hop(name, False, f"does not answer at {topology.at[name]}", do=f"claimhouse stack logs {name}")


def _connector(topology: Topology) -> Hop:
    client = Connect(topology.url("connect"))
    try:
        connector, task = client.state(topology.prefix)
    except ClaimhouseError as error:
        return Hop("connect", False, str(error), do="claimhouse stack logs connect, then claimhouse stack register")
    if task == "RUNNING":
        return Hop("connect", True, f"connector {topology.prefix} runs")
    trouble = client.trouble(topology.prefix) or f"connector {connector}, task {task}"
    return Hop("connect", False, trouble, do="claimhouse stack register restarts it once its cause is gone")


def _streaming(job: dict[str, Any] | None) -> Hop:
    if job is None or time.time() - job["at"] > STALE:
        return Hop("spark", False, "the streaming job does not run", do="claimhouse stack logs spark")
    streaming = job.get("streaming")
    if streaming is None:
        return Hop("spark", True, "no event came yet")
    words = f"batch {streaming['batch']}, {streaming['events']} events in {streaming['seconds']:.1f} s"
    if streaming["waiting"]:
        words += f", {streaming['waiting']} transactions incomplete"
    if streaming["dead"]:
        return Hop(
            "spark", False, f"{streaming['dead']} unreadable messages", streaming["lag"], "see docs/full-stack.md"
        )
    return Hop("spark", True, words, streaming["lag"])


def _lake(job: dict[str, Any] | None, topology: Topology) -> Hop:
    flush = (job or {}).get("flush")
    if flush is None:
        return Hop("lake", job is not None, "nothing is flushed yet")
    late = max(0.0, time.time() - flush["at"] / 1e6)
    ahead = (job or {}).get("streaming", {}).get("end_lsn", 0) > flush["end_lsn"]
    ok = not ahead or late < 5 * topology.flush_every + 60
    return Hop(
        "lake", ok, f"flush {flush['flush']} at cut {flush['cut']}", late, None if ok else "claimhouse stack logs spark"
    )


def _trino(topology: Topology, job: dict[str, Any] | None) -> Hop:
    try:
        if not Trino(topology.url("trino"), catalog=topology.catalog).ready():
            return Hop("trino", False, "starts", do="wait")
    except OSError:
        return Hop("trino", False, f"does not answer at {topology.at['trino']}", do="claimhouse stack logs trino")
    views = (job or {}).get("views") or {}
    if views.get("error"):
        return Hop("trino", False, views["error"], do="claimhouse stack register")
    return Hop("trino", True, f"views are at flush {views.get('flush', 'none')}")


def _job(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
