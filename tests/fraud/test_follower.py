"""Hits of a real lake: captured from PostgreSQL, followed cut by cut, through kills and at past moments."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.fraud.books import full

from claimhouse.change import lsn_text
from claimhouse.claims.loader import load as load_book
from claimhouse.fraud import Follower, follow, load
from claimhouse.fraud.hits import events
from claimhouse.lake.lake import Lake, open_lake
from claimhouse.pipeline import Capture, CaptureOptions
from claimhouse.query.session import Session

queue = importlib.import_module("claimhouse.fraud.queue")


@pytest.fixture
def captured(postgres: Any, tmp_path: Path) -> CaptureOptions:
    load_book(postgres.dsn, scale=0.03, seed=4)
    options = CaptureOptions("main", postgres.dsn, str(tmp_path / "lake"), once=True)
    Capture(options).run()
    return options


def _counts(lake: Lake) -> Counter[tuple[str, str, str]]:
    log = events(lake)
    assert log is not None
    return Counter((r["event"], r["rule"], r["claim_id"]) for r in log.to_pylist())


def _evaluate(lake: Lake, failpoint: str = "") -> int:
    environment = {**os.environ, "CLAIMHOUSE_FAILPOINT": failpoint}
    command = [sys.executable, "-m", "claimhouse", "fraud", "run", "--once", "--lake", lake.location]
    return subprocess.run(command, env=environment, capture_output=True, timeout=120).returncode


def test_hits_follow_the_source_and_no_kill_loses_or_doubles_one(postgres: Any, captured: CaptureOptions) -> None:
    lake = open_lake(captured.location)
    assert _evaluate(lake, "fraud.before_append") == -9
    assert events(lake) is None
    assert _evaluate(lake, "fraud.after_append") == -9
    first = _counts(lake)
    assert first and set(first.values()) == {1}
    assert _evaluate(lake) == 0
    assert _counts(lake) == first  # nothing twice, nothing new

    follower = Follower(lake, load("demo"))
    assert follower.start().events == 0
    assert follower.step() is None
    with Session(lake) as session:
        before = lsn_text(session.positions["main"].lsn)
    claim = postgres.execute("SELECT c.claim_id::text, c.policy_id::text, p.inception::text FROM claim c"
                             " JOIN policy p USING (policy_id) WHERE c.loss_date > p.inception + 60"
                             " ORDER BY 1 LIMIT 1")[0]  # fmt: skip
    postgres.execute(f"UPDATE policy SET inception = (SELECT loss_date + 9 FROM claim WHERE claim_id = {claim[0]})"
                     f" WHERE policy_id = {claim[1]}")  # fmt: skip
    Capture(captured).run()
    step = follower.step()
    assert step is not None and not step.whole and step.events > 0
    row = queue.queue(lake, claim=claim[0])[0]
    hit = next(h for h in row.hits if h.rule == "before_inception")
    assert hit.values["days"] == 9 and hit.withdrawn is None and hit.lsn == lsn_text(step.moment.lsn)
    fresh = full(follower.engine)
    assert {n: set(h) for n, h in follower.engine.held.items()} == {n: set(h) for n, h in fresh.items()}
    then = queue.queue(lake, at=before, claim=claim[0])
    assert not any(h.rule == "before_inception" for r in then for h in r.hits)

    postgres.execute(f"UPDATE policy SET inception = '{claim[2]}' WHERE policy_id = {claim[1]}")
    Capture(captured).run()
    last = follow(lake, once=True)  # another process takes over, from the log
    assert last is not None and last.events > 0
    log = events(lake).to_pylist()
    gone = [r["event"] for r in log if r["rule"] == "before_inception" and r["claim_id"] == claim[0]]
    assert gone == ["held", "withdrawn"]
    follower.close()


def test_what_a_mirror_cannot_follow_is_made_anew(postgres: Any, captured: CaptureOptions) -> None:
    follower = Follower(open_lake(captured.location), load("demo"))
    follower.start()
    postgres.execute("ALTER TABLE party RENAME COLUMN phone TO telephone")
    postgres.execute("ALTER TABLE party RENAME COLUMN telephone TO phone")
    postgres.execute("ALTER TABLE claim ADD COLUMN channel text NOT NULL DEFAULT 'phone'")
    postgres.execute("UPDATE claim SET channel = 'web', cause = 'fire' WHERE claim_id < 9")
    Capture(captured).run()
    step = follower.step()
    assert step is not None
    postgres.execute("TRUNCATE activity")
    postgres.execute("DELETE FROM recovery_txn")
    Capture(captured).run()
    assert follower.step() is not None
    fresh = full(follower.engine)
    assert {n: set(h) for n, h in follower.engine.held.items()} == {n: set(h) for n, h in fresh.items()}
    follower.close()
