"""docs/fraud.md, written from the headers of the rules, the inputs and the settings.

`python -m claimhouse.fraud.document docs/fraud.md` writes it; a test holds the page equal to it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from claimhouse.fraud.compose import needs, tables
from claimhouse.fraud.inputs import INPUTS
from claimhouse.fraud.model import load
from claimhouse.fraud.model import shipped as models
from claimhouse.fraud.rule import CLASSES, Rule, RuleSet, shipped

HEAD = """\
# Indicators on claims

<!-- Written from fraud/sql by `python -m claimhouse.fraud.document docs/fraud.md`: change it there. -->

Rules look at claims as they change and say what they find: *indicators consistent with …*, never more. A hit decides
nothing; three or more flags on a claim are a reason to consider a special investigation, which people decide. What they
decide is kept in the lake (`control/dispositions`; without its notes also as a Delta table,
`marts/fraud/dispositions`), never in the source.

    claimhouse fraud run                              # keep the hits, cut by cut, beside claimhouse run
    claimhouse fraud queue                            # claims with hits, highest score first; also --at a past moment
    claimhouse fraud queue CLM-2025-006101            # every indicator of one claim, held or withdrawn
    claimhouse fraud dispose CLM-2025-006101 referred --who mw --note "…"
    make fraud-report                                 # precision, recall and alerts per rule, on labelled books

## How it works

- A rule is one SQL file in `fraud/sql`, in the figures' subset of SQL, over logical inputs that a *model file* fills
  from an insurer's own tables. Its header holds what it looks for, why, who says so, its weight and its parameters.
- A changed row touches claims, in the state before it and in the state after it; where a fact of a claim then differs,
  the rules that read that fact score it again, and with it the claims that share what the rule follows. So a late
  policy or party scores its claims again. Scoring what changed comes to the same as scoring everything.
- A hit that no longer holds is withdrawn with its moment; nothing is deleted. `marts/fraud/hits` is a Delta table, one
  row per event (`held`, `revised`, `withdrawn`): source, cut, LSN and commit time of the cut at which it was found so,
  rule, claim, score, weight, and the values that made it fire as JSON. What holds is the last event of each rule and
  claim; what held at a past moment is the last one up to it.
- A claim's score is 1 - product(1 - weight x own score), shown from 0 to 100. Bands: {bands}.
- Hits are written by one process a source; an evaluation is one commit, so a kill loses or doubles nothing.

Parameters, weights and bands are set in a TOML file that `[fraud] rules` names:

    [early_loss]
    days = 20
    weight = 0.2

    [benford]
    enabled = false

    [bands]
    high = 0.6

## Quality

`make fraud-report` scores whole demo books whose fraud is labelled, on seeds that nobody looked at while the rules were
written, and prints per rule and combined: alerts per 1,000 claims, recall, and precision with Wilson's 95 % intervals,
also into `build/fraud.json`. Base rates are realistic, and the books hold innocent lookalikes of most patterns. They
are generated books: what a rule is worth on an insurer's own claims is told by dispositions.

## Limits

- `fraud run` holds the columns that rules read in memory, and makes them anew every hour, after a truncate or a new
  copy, and when it falls so far behind that cuts were dropped before it read them.
- The LSN of an event is the end of the cut at which the evaluation found it so: evaluations under load take several
  cuts together, and a hit that came and went between two of them leaves no trace.
- A model's tables lie in one source. Values of statistics rules are revised only when the score moves by 0.1.

## Rules
"""
MODELS = """\
## Model files

A model is a TOML file: one SELECT per input, in the same subset of SQL, whose columns are those below, each written
with its table's alias; `[changed]` tells, for every table that an input reads, whose claims a changed row touches.
Tables need a primary key. A rule whose inputs a model leaves out is off.
"""


def markdown() -> str:
    """The whole page."""
    rules, bands = shipped().values(), RuleSet({})
    told = f"high from {bands.high * 100:.0f}, medium from {bands.medium * 100:.0f}"
    parts = [HEAD.format(bands=told)]
    parts.append(_grid(("rule", "class", "what", "weight"), (
        (f"[{r.name}](#{r.name})", r.kind, r.title, f"{r.weight:g}") for r in rules)))  # fmt: skip
    for kind in CLASSES:
        parts += [_rule(rule) for rule in rules if rule.kind == kind]
    parts += [MODELS, "Shipped: " + "; ".join(f"`{n}` ({load(n).title})" for n in models()) + ".\n"]
    for item in INPUTS.values():
        columns = ((f"`{c.name}`", c.kind + ("?" if c.nullable else ""), c.meaning) for c in item.columns)
        parts += [f"### {item.name}\n", f"Rows: {item.row}.\n", _grid(("column", "kind", "meaning"), columns)]
    return "\n".join(parts)


def _rule(rule: Rule) -> str:
    parameters = ((f"`{p.name}`", p.kind, str(p.default), p.meaning) for p in rule.parameters)
    lines = [
        f"### {rule.name}\n",
        f"**{rule.title}.** {rule.explanation}\n",
        f"- Class: {rule.kind}; weight {rule.weight:g}",
        f"- Says: {rule.indicator}",
        f"- Source: {rule.source}",
        f"- Inputs: {', '.join(needs(rule))}; in the demo book: {', '.join(sorted(tables(rule, load('demo'))))}",
        f"- Scores again: {_reach(rule)}\n",
    ]
    if rule.parameters:
        lines.append(_grid(("parameter", "kind", "default", "meaning"), parameters))
    values = rule.columns
    lines.append(_grid(("value", "kind", "meaning"), ((f"`{c.name}`", c.kind, c.meaning) for c in values)))
    return "\n".join(lines)


def _reach(rule: Rule) -> str:
    if rule.reach == ("self",):
        return "the claim whose facts changed"
    if "all" in rule.reach:
        return "every claim, in a bounded share of the time"
    if "component" in rule.reach:
        return "the connected component of the claim whose facts changed"
    within = f", reported within {rule.days} days" if rule.days else ""
    return f"the claim whose facts changed, and those with the same {' or '.join(rule.reach)}{within}"


def _grid(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown(), encoding="utf-8")
