"""What figures read: logical inputs, whose columns a model file fills from an insurer's own tables.

One visible table, `INPUTS`; docs/figures.md and the errors of model files speak from it. Kinds:

`key`     a whole number or text, the same kind for the same thing in every input
`text`    text
`date`    a day in the book's zone
`moment`  a timestamp without zone: the book's wall clock
`money`   a decimal or whole number in units of `currency`; signed where said so
`count`   a whole number
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InputColumn:
    """A column that the model's SELECT must have, in any order; `nullable` if a NULL there means something."""

    name: str
    kind: str
    meaning: str
    nullable: bool = False


@dataclass(frozen=True)
class Input:
    """One logical input: what a row of it is, and its columns."""

    name: str
    row: str
    columns: tuple[InputColumn, ...]

    @property
    def per_claim(self) -> bool:
        """True where each row belongs to one claim, so that a figure can be had for some claims only."""
        return any(column.name == "claim_id" for column in self.columns)


def columns(text: str) -> tuple[InputColumn, ...]:
    """Columns from lines of name, kind (`?`: NULL allowed) and meaning."""
    rows = [line.split(None, 2) for line in text.strip().splitlines()]
    return tuple(InputColumn(name, kind.rstrip("?"), meaning, kind.endswith("?")) for name, kind, meaning in rows)


_ALL = (
    Input("claim_input", "one per claim, as it stands", columns("""
        claim_id          key     tells claims apart
        claim_number      text    as people call it
        line              text    line of business
        currency          text    the policy's currency
        loss_date         date    day of the loss: the accident date
        reported_on       date    day of the first notice
        closed_on         date?   day of the last closing; NULL while open
        status            text    as the insurer names it
        cause             text?   kind of loss
        catastrophe_code  text?   of the event it belongs to
        adjuster          text?   who handles it
        """)),
    Input("payment_input", "one per payment or share of one on a claim; corrections are negative rows", columns("""
        payment_id        key     orders payments of one moment
        claim_id          key     the claim
        exposure_id       key     coverage and claimant it is booked on
        cost_type         text    indemnity or expense
        amount            money   signed
        currency          text    of the amount
        paid_at           moment  when it was paid
        """)),
    Input("reserve_input", "one per change of a case reserve; payments draw it down by rows of their own", columns("""
        reserve_id        key     orders changes of one moment
        claim_id          key     the claim
        exposure_id       key     coverage and claimant it is booked on
        cost_type         text    indemnity or expense
        reason            text    initial for the first reserve of an exposure, else as the insurer names it
        amount            money   signed change: outstanding is the sum
        currency          text    of the amount
        booked_at         moment  when it was booked
        """)),
    Input("recovery_input", "one per amount that came back; corrections are negative rows", columns("""
        claim_id          key     the claim
        kind              text    salvage or subrogation
        amount            money   positive: money received
        currency          text    of the amount
        booked_at         moment  when it was booked
        """)),
    Input("status_input", "one per change of a claim's status", columns("""
        claim_id          key     the claim
        status            text    closed and reopened are counted, other words are not
        changed_at        moment  when it changed
        """)),
    Input("premium_input", "one per written, additional or returned premium", columns("""
        line              text    line of business
        amount            money   signed, earned evenly over its span
        currency          text    of the amount
        earned_from       date    first day
        earned_to         date    the day after the last
        """)),
    Input("in_force_input", "one per span in which a policy was in force unchanged; spans do not overlap", columns("""
        line              text    line of business
        currency          text    the policy's currency
        units             count   insured units: vehicles, sites, persons; 1 for policy-years
        in_force_from     date    first day
        in_force_to       date    the day after the last
        """)),
    Input("amount_history_input", "one per version of a row that holds amounts, from the change log", columns("""
        claim_id          key     the claim
        line              text    line of business
        currency          text    of the amounts
        loss_date         date    day of the loss
        paid              money   that this row says is paid
        outstanding       money   that this row says is reserved
        valid_from        date    day from which the book said so
        valid_to          date?   day on which it said so no longer; NULL for what still stands
        """)),
)  # fmt: skip

INPUTS: dict[str, Input] = {item.name: item for item in _ALL}
