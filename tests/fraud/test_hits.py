"""The log of hits: what holds, since when, once each; the queue and decisions over it; one writer."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from claimhouse.errors import Fenced, UsageError
from claimhouse.fraud import load_rules
from claimhouse.fraud.disposition import Dispositions
from claimhouse.fraud.evaluate import Hit
from claimhouse.fraud.hits import DECIDED, Event, HitWriter, current, events, prepare
from claimhouse.fraud.score import combined
from claimhouse.lake import delta
from claimhouse.lake.lake import Lake, create
from claimhouse.marts.mirror import Moment
from claimhouse.query.moment import Position

queue = importlib.import_module("claimhouse.fraud.queue")
RULES = load_rules().rules


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return create(tmp_path / "lake")


def _moment(cut: int) -> Moment:
    return Moment("main", 1, cut, cut * 16, 1_700_000_000_000_000 + cut * 1_000_000)


def _hit(rule: str, claim: str, score: float = 1.0, values: str = '{"days": 3}') -> Hit:
    return Hit(rule, claim, f"C-{claim}", score, values)


def test_what_holds_is_the_last_event_and_began_where_it_was_held(lake: Lake) -> None:
    writer = HitWriter(lake, "main")
    writer.append(
        [Event("held", _hit("early_loss", "1")), Event("held", _hit("over_limit", "1", 0.8))], _moment(3), RULES
    )
    writer.append([Event("revised", _hit("over_limit", "1", 0.9))], _moment(5), RULES)
    writer.append([Event("withdrawn", _hit("early_loss", "1"))], _moment(7), RULES)
    held = current(lake).to_pylist()
    assert [(h["rule"], h["score"], h["since_cut"], h["since_lsn"]) for h in held] == [("over_limit", 0.9, 3, 48)]
    then = current(lake, {"main": Position(1, 5 * 16)}).to_pylist()
    assert {h["rule"] for h in then} == {"over_limit", "early_loss"}
    log = events(lake)
    assert log is not None and log["event"].to_pylist() == [
        "held",
        "held",
        "revised",
        "withdrawn",
    ]  # nothing is deleted
    assert writer.recorded() == 7 and set(writer.held()) == {("over_limit", "1")}


def test_a_lake_where_no_rules_ran_has_no_queue_and_an_empty_one_is_empty(lake: Lake) -> None:
    assert queue.queue(lake) is None and queue.summary(lake) is None
    HitWriter(lake, "main").append([], _moment(1), RULES)
    assert queue.queue(lake) == []


def test_the_queue_tells_scores_bands_changes_and_reasons(lake: Lake) -> None:
    writer = HitWriter(lake, "main")
    first = [Event("held", _hit("early_loss", "1")), Event("held", _hit("before_inception", "2", values='{"days": 9}'))]
    writer.append(first, _moment(3), RULES)
    writer.append(
        [Event("held", _hit("holiday_loss", "1")), Event("held", _hit("round_amount", "1"))], _moment(6), RULES
    )
    two, one = queue.queue(lake)
    assert (two.claim, two.score, two.band, two.previous, two.lsn) == ("C-2", 80.0, "high", None, "0/30")
    weights = [RULES[name].weight for name in ("early_loss", "holiday_loss", "round_amount")]
    assert one.score == pytest.approx(100 * combined((w, 1.0) for w in weights), abs=0.05)
    assert one.previous == 35.0 and one.consider and one.since < one.changed
    assert [h.rule for h in one.hits] == ["early_loss", "round_amount", "holiday_loss"]
    assert two.summary == "indicators consistent with: loss before the policy began"
    assert two.hits[0].reason.startswith("the loss is dated 9 days before") and two.hits[0].values == {"days": 9}
    assert [r.claim for r in queue.queue(lake, band="high")] == ["C-2", "C-1"][: 1 + (one.score >= 50)]
    assert [r.claim for r in queue.queue(lake, rule="holiday_loss")] == ["C-1"]
    assert queue.summary(lake).rules["early_loss"] == 1
    steps = queue.history(lake, "C-1")
    assert [s["event"] for s in steps] == ["held"] * 3 and steps[-1]["combined"] == one.score
    with pytest.raises(UsageError):
        queue.queue(lake, band="purple")


def test_a_withdrawn_hit_stays_to_be_seen_with_its_moment(lake: Lake) -> None:
    writer = HitWriter(lake, "main")
    writer.append([Event("held", _hit("early_loss", "1")), Event("held", _hit("over_limit", "1"))], _moment(3), RULES)
    writer.append([Event("withdrawn", _hit("early_loss", "1"))], _moment(5), RULES)
    (row,) = queue.queue(lake)
    assert [(h.rule, h.withdrawn is None) for h in row.hits] == [("over_limit", True), ("early_loss", False)]
    assert row.flags == 1 and row.previous is not None and row.previous > row.score


def test_a_decision_is_kept_in_the_lake_with_who_and_when(lake: Lake) -> None:
    HitWriter(lake, "main").append([Event("held", _hit("over_limit", "1"))], _moment(3), RULES)
    made = queue.dispose(lake, "C-1", "mw", "watching", "asked for the estimate")
    queue.dispose(lake, "1", "mw", "referred")  # by its key as well
    assert (made.who, made.verdict, made.score, made.lsn) == ("mw", "watching", 75.0, "0/30") and made.at.endswith("Z")
    assert [d.verdict for d in Dispositions(lake).of("C-1")] == ["referred", "watching"]
    (row,) = queue.queue(lake)
    assert row.disposition is not None and row.disposition.verdict == "referred" and row.flags == 1
    assert queue.summary(lake).undecided == 0
    for claim, who, decision in (("C-9", "mw", "cleared"), ("C-1", " ", "cleared"), ("C-1", "mw", "guilty")):
        with pytest.raises(UsageError):
            queue.dispose(lake, claim, who, decision)


def test_a_second_writer_fences_the_first(lake: Lake) -> None:
    first, second = HitWriter(lake, "main"), HitWriter(lake, "main")
    second.append([Event("held", _hit("over_limit", "1"))], _moment(3), RULES)
    with pytest.raises(Fenced):
        first.append([Event("held", _hit("over_limit", "2"))], _moment(3), RULES)
    assert current(lake).num_rows == 1


def test_joining_small_files_leaves_the_log_as_it_was(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("claimhouse.fraud.hits.JOIN_EVERY", 4)
    writer = HitWriter(lake, "main")
    for cut in range(1, 10):
        writer.append([Event("held", _hit("over_limit", str(cut)))], _moment(cut), RULES)
    log = events(lake)
    assert log is not None and log["cut"].to_pylist() == list(range(1, 10))
    assert writer.recorded() == 9


def _decided(lake: Lake) -> list[tuple[int, str, str]]:
    table = delta.open_table(lake, DECIDED)
    assert table is not None
    rows = table.to_pyarrow_dataset().to_table().sort_by("number").to_pylist()
    return [(r["number"], r["claim_number"], r["verdict"]) for r in rows]


def test_tables_that_were_only_prepared_are_no_queue_yet(lake: Lake) -> None:
    prepare(lake)
    prepare(lake)
    assert events(lake) is None and queue.queue(lake) is None and _decided(lake) == []
    HitWriter(lake, "main").append([], _moment(1), RULES)
    assert queue.queue(lake) == []


def test_decisions_are_copied_once_each_without_their_notes(lake: Lake) -> None:
    made = Dispositions(lake)
    made.add("C-1", "watching", "mw", "a note that stays where it is", score=63.0)
    assert HitWriter(lake, "main").decided() == 1
    made.add("C-1", "cleared", "mw")
    made.add("C-2", "referred", "mw")
    writer = HitWriter(lake, "main")
    assert writer.decided() == 2 and writer.decided() == 0
    assert _decided(lake) == [(1, "C-1", "watching"), (2, "C-1", "cleared"), (3, "C-2", "referred")]
    table = delta.open_table(lake, DECIDED)
    assert table is not None and "note" not in [f.name for f in table.schema().fields]


def test_a_writer_that_was_fenced_copies_no_decision(lake: Lake) -> None:
    first, _ = HitWriter(lake, "main"), HitWriter(lake, "main")
    Dispositions(lake).add("C-1", "watching", "mw")
    with pytest.raises(Fenced):
        first.decided()
