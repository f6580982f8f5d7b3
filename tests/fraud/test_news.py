"""What came to the queue and left it, told once."""

from __future__ import annotations

from pathlib import Path

from claimhouse.fraud.evaluate import Hit
from claimhouse.fraud.hits import Event, HitWriter
from claimhouse.fraud.news import MANY, News
from claimhouse.fraud.rule import load_rules
from claimhouse.lake.lake import create
from claimhouse.marts.mirror import Moment

RULES = load_rules().rules


def _hit(rule: str, claim: str) -> Hit:
    return Hit(rule, claim, f"C-{claim}", 1.0, '{"days": 3}')


def _moment(cut: int, source: str = "main") -> Moment:
    return Moment(source, 1, cut, cut * 16, cut * 1_000_000)


def test_each_change_is_told_once_and_what_held_before_is_not(tmp_path: Path) -> None:
    lake = create(tmp_path / "lake")
    news = News(lake)
    assert news.look() is None
    writer = HitWriter(lake, "main")
    writer.append([Event("held", _hit("over_limit", "1"))], _moment(1), RULES)
    late = News(lake)
    assert late.look() is None
    found = news.look()
    assert found is not None and (found.held, found.withdrawn) == (1, 0)
    assert [(r.claim, r.score) for r in found.claims] == [("C-1", 75.0)] and found.bands["high"] == 1
    assert news.look() is None
    writer.append([Event("withdrawn", _hit("over_limit", "1"))], _moment(2), RULES)
    for one in (news, late):
        found = one.look()
        assert found is not None and (found.held, found.withdrawn) == (0, 1)
        (row,) = found.claims
        assert (row.score, row.flags, row.band, row.summary) == (0.0, 0, "low", "no indicator holds any longer")
        assert found.newest == [] and sum(found.bands.values()) == 0


def test_sources_are_told_apart_by_their_own_clocks(tmp_path: Path) -> None:
    lake = create(tmp_path / "lake")
    news = News(lake)
    news.look()
    HitWriter(lake, "a").append([Event("held", _hit("over_limit", "1"))], _moment(1, "a"), RULES)
    assert news.look() is not None
    HitWriter(lake, "b").append([Event("held", _hit("over_limit", "1"))], _moment(1, "b"), RULES)
    found = news.look()
    assert found is not None and [r.source for r in found.claims] == ["b"] and len(found.newest) == 2


def test_very_many_changes_are_counted_beyond_what_is_told(tmp_path: Path) -> None:
    lake = create(tmp_path / "lake")
    news = News(lake)
    news.look()
    events = [Event("held", _hit("over_limit", f"{n:03d}")) for n in range(MANY + 5)]
    HitWriter(lake, "main").append(events, _moment(1), RULES)
    found = news.look()
    assert found is not None and (found.held, len(found.claims), found.more) == (MANY + 5, MANY, 5)
