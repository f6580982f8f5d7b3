"""`claimhouse fraud …`: keep the rules' hits, read the queue, decide, and measure the rules."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from claimhouse.cli.options import ConfigOption, JsonOption, LakeOption, NameOption, NoAccessLogOption, settings_for
from claimhouse.cli.reading import Reading
from claimhouse.cli.talk import clipped, columns, emit, emit_line, printable, say

if TYPE_CHECKING:
    from claimhouse.fraud import RuleSet, Step
    from claimhouse.fraud.queue import QueueRow
    from claimhouse.lake.lake import Lake
    from claimhouse.settings import Settings

app = typer.Typer(
    help="Indicators on claims by rules, explained one by one; people decide.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
AtOption = Annotated[
    str | None,
    typer.Option("--at", metavar="MOMENT", help="A past moment: 0/16B3748, xid:4711, cut:17, an ISO time or a date."),
]


@app.command(short_help="Keep the rules' hits, cut by cut.")
def run(
    lake: LakeOption = None,
    name: NameOption = None,
    once: Annotated[bool, typer.Option("--once", help="Bring the hits to the newest cut, then end.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME|FILE", help="Where the tables hold what rules read.")
    ] = None,
    rules: Annotated[
        str | None, typer.Option("--rules", metavar="FILE", help="Parameters, weights and bands of the rules.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Keep the hits of a lake, cut by cut, until stopped. Reads the lake and writes marts/fraud/hits in it.

    \b
    Examples:
      claimhouse fraud run
      claimhouse fraud run --once --rules fraud.toml
    """
    from claimhouse.cli.run import stopping
    from claimhouse.fraud import follow

    settings = settings_for(config, lake, fraud__model=model, fraud__rules=rules)
    found = _lake(settings)
    say(f"rules on {found.location}: hits go to marts/fraud/hits; nothing is written to the source")
    with stopping("stopping after this evaluation (again to stop at once)") as stop:
        follow(
            found, settings.fraud.model, stop, rules=_rules(settings), source=name, once=once,
            on_step=_telling_json if as_json else _telling,
        )  # fmt: skip
    if once:
        say("next: claimhouse fraud queue")


def _telling(step: Step) -> None:
    if step.whole or step.events:
        what = "every claim" if step.whole else "what changed"
        say(f"cut {step.moment.cut}: {what} in {step.seconds:.2f} s, {step.events:,} events, {step.held:,} hits hold")


def _telling_json(step: Step) -> None:
    emit_line({**asdict(step.moment), "whole": step.whole, "events": step.events, "held": step.held,
               "seconds": round(step.seconds, 4), "lag": round(step.lag, 4)})  # fmt: skip


@app.command(short_help="The claims with indicators, or one in full.")
def queue(
    claim: Annotated[str | None, typer.Argument(metavar="[CLAIM]", help="One claim, in full.")] = None,
    lake: LakeOption = None,
    at: AtOption = None,
    band: Annotated[str | None, typer.Option("--band", help="Only high, medium or low.")] = None,
    rule: Annotated[
        str | None, typer.Option("--rule", metavar="NAME", help="Only claims with a hit of a rule.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="At most so many claims.")] = 20,
    as_json: JsonOption = False,
    no_access_log: NoAccessLogOption = False,
    config: ConfigOption = None,
) -> None:
    """List the claims with indicators, highest score first; a claim's number shows every indicator and decision.

    \b
    Examples:
      claimhouse fraud queue
      claimhouse fraud queue --band high --at 2026-03-31
      claimhouse fraud queue CLM-2025-006101
    """
    from claimhouse.errors import UsageError
    from claimhouse.fraud import queue as queues
    from claimhouse.fraud.disposition import Dispositions

    settings = settings_for(config, lake)
    found, zone, rules = _lake(settings), settings.query.zone, _rules(settings)
    if rule is not None and rule not in rules.rules:
        raise UsageError(f"there is no rule {rule}", hint=f"one of: {', '.join(rules.rules)}")
    rows = queues.queue(found, at=at, limit=limit, band=band, rule=rule, claim=claim, rules=rules, zone=zone)
    if rows is None:
        raise UsageError("no rules have run on this lake", hint="claimhouse fraud run --once")
    if claim is not None:
        reading = Reading(found, "fraud", at, audited=settings.query.access_log and not no_access_log)
        reading.note("claim", {"claim_number": rows[0].claim if rows else claim}, found=bool(rows))
        reading.kept()
    if as_json:
        emit([row.as_data() for row in rows])
    elif claim is None:
        if not rows:
            say("no claim with indicators, or none that was asked for")
        print(columns(["claim", "score", "before", "band", "flags", "since", "decision", "what"], map(_line, rows)))
    else:
        for row in rows:
            _in_full(row)
        for made in Dispositions(found).of(rows[0].claim if rows else claim):
            note = f": {made.note}" if made.note else ""
            print(printable(f"decided {made.at[:19]}  {made.title}, by {made.who}{note}"))
        if not rows:
            say(f"no rule holds on claim {claim}")
            _past(queues.history(found, claim, at=at, zone=zone))


def _line(row: QueueRow) -> tuple[Any, ...]:
    before = "" if row.previous is None else row.previous
    decided = row.disposition.verdict if row.disposition else ""
    return (
        row.claim,
        row.score,
        before,
        row.band,
        row.flags,
        f"{row.since:%Y-%m-%d %H:%M}",
        decided,
        clipped(row.summary, 90),
    )


def _in_full(row: QueueRow) -> None:
    before = "" if row.previous is None else f", before that {row.previous}"
    print(printable(f"{row.claim}: score {row.score} ({row.band}{before}); {row.summary}"))
    if row.consider:
        print(f"{row.flags} flags: consider a special investigation")
    lines = [
        (h.score, h.rule, f"{h.first_held:%Y-%m-%d %H:%M:%S}", h.lsn,
         f"withdrawn {h.withdrawn:%Y-%m-%d %H:%M:%S}" if h.withdrawn else "holds", h.reason)
        for h in row.hits
    ]  # fmt: skip
    print(columns(["score", "rule", "since", "lsn", "", "indicator"], lines))


def _past(events: list[dict[str, Any]]) -> None:
    """What once held on a claim, event by event."""
    if events:
        rows = (
            (f"{e['at']:%Y-%m-%d %H:%M:%S}", e["lsn"], e["event"], e["rule"], e["score"], e["reason"]) for e in events
        )
        print(columns(["when", "lsn", "event", "rule", "score", "indicator"], rows))


@app.command(short_help="Keep what was decided about a claim.")
def dispose(
    claim: Annotated[str, typer.Argument(metavar="CLAIM", help="The claim's number.")],
    decision: Annotated[str, typer.Argument(metavar="DECISION", help="open, watching, referred or cleared.")],
    who: Annotated[str, typer.Option("--who", metavar="NAME", help="Who decides.")],
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why.")] = "",
    lake: LakeOption = None,
    config: ConfigOption = None,
) -> None:
    """Keep what was decided about a claim, in the lake; the source is never written.

    \b
    Examples:
      claimhouse fraud dispose CLM-2025-006101 referred --who mw --note "two invoices, one number"
    """
    from claimhouse.fraud import queue as queues

    made = queues.dispose(_lake(settings_for(config, lake)), claim, who, decision, note)
    say(f"{made.claim}: {made.title}, by {made.who}, at score {made.score}")


@app.command(short_help="Precision and recall of the rules.")
def report(
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="N,…", help="Books to measure on. [default: the held-out ones]")
    ] = None,
    scale: Annotated[float | None, typer.Option("--scale", metavar="X", help="Size of each book.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Also write it as JSON.")] = None,
    rules: Annotated[
        str | None, typer.Option("--rules", metavar="FILE", help="Parameters, weights and bands of the rules.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Measure the rules on labelled books: precision, recall and alerts per rule and combined, with 95 % intervals.

    \b
    Examples:
      claimhouse fraud report
      claimhouse fraud report --seeds 201,202 --scale 1 --out build/fraud.json
    """
    from claimhouse.errors import UsageError
    from claimhouse.fraud.quality import HELD_OUT, SCALE, WRITTEN_ON, measure

    settings = settings_for(config, None, fraud__rules=rules)
    try:
        chosen = tuple(int(s) for s in seeds.split(",")) if seeds else HELD_OUT
    except ValueError:
        raise UsageError("--seeds are whole numbers with commas between") from None
    if seen := sorted(set(chosen) & set(WRITTEN_ON)):
        say(f"seeds {seen} were looked at while the rules were written: not a fair measure")
    found = measure(chosen, scale or SCALE, _rules(settings))
    if out is not None:
        found.write(out)
        say(f"written to {out}")
    if as_json:
        emit(found.as_data())
        return
    rows = found.rows()
    print(columns(list(rows[0]), ([*row.values()] for row in rows)))
    claims = next(iter(found.rules.values())).claims
    say(f"{len(found.seeds)} books of scale {found.scale}, {claims:,} claims, {found.planted_claims:,} of them planted")
    sys.stdout.flush()


def _lake(settings: Settings) -> Lake:
    from claimhouse.lake.lake import open_lake

    return open_lake(settings.lake.location, settings.storage_options())


def _rules(settings: Settings) -> RuleSet:
    from claimhouse.fraud import load_rules

    return load_rules(settings.fraud.rules)
