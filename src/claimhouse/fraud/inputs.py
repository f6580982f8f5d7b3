"""What rules read: logical inputs, whose columns a model file fills from an insurer's own tables.

One visible table, `INPUTS`; docs/fraud.md and the errors of model files speak from it. Kinds of columns are those of
the figures' inputs (marts/inputs.py), days are days in the book's zone. Two more inputs are made here, not by a model:
`subject`, the claims that are being scored, and `component_input`, the connected components (graph.py).
"""

from __future__ import annotations

from claimhouse.marts.inputs import Input, columns

_ALL = (
    Input("claim_input", "one per claim, as it stands", columns("""
        claim_id          key     tells claims apart
        claim_number      text    as people call it
        policy_id         key     the policy it is made on
        asset             text?   the insured thing, as text
        vin               text?   a vehicle's number: the same thing on any policy
        line              text    line of business
        cause             text?   kind of loss
        loss_date         date    day of the loss
        reported_on       date    day of the first notice
        catastrophe_code  text?   of the event it belongs to
        """)),
    Input("policy_input", "one per policy, as it stands", columns("""
        policy_id         key     tells policies apart
        inception         date    first day of cover
        ended_on          date?   first day without cover after a lapse or cancellation
        """)),
    Input("limit_input", "one per span in which a policy covered a kind of loss unchanged", columns("""
        policy_id         key     the policy
        version           count   grows with each change of the policy
        kind              text    kind of coverage
        limit_amount      money   the most that is paid per claim
        reason            text    limit_increase where the span began with one
        valid_from        date    first day
        valid_to          date    the day after the last
        """)),
    Input("exposure_input", "one per coverage and claimant of a claim", columns("""
        exposure_id       key     tells exposures apart
        claim_id          key     the claim
        kind              text    kind of coverage
        limit_amount      money?  the most that the coverage pays per claim
        """)),
    Input("share_input", "one per share of a payment on an exposure; corrections are negative", columns("""
        claim_id          key     the claim
        exposure_id       key     the exposure
        cost_type         text    indemnity or expense
        amount            money   signed
        """)),
    Input("payment_input", "one per payment on a claim; corrections are negative", columns("""
        payment_id        key     tells payments apart
        claim_id          key     the claim
        amount            money   signed
        paid_on           date    day of the payment
        authority         money?  the largest payment that the claim's adjuster may approve alone
        """)),
    Input("invoice_input", "one per invoice on a claim", columns("""
        invoice_id        key     tells invoices apart
        claim_id          key     the claim
        provider_id       key     who sent it
        invoice_number    text    as the provider wrote it
        amount            money   its total
        invoiced_on       date    its date
        """)),
    Input("provider_input", "one per provider", columns("""
        provider_id       key     tells providers apart
        kind              text    body shop, clinic, …: peers are of one kind
        """)),
    Input("link_input", "one per claim and thing that other claims may share", columns("""
        claim_id          key     the claim
        kind              text    claimant, address, phone, account, provider, asset or vin
        value             text    the thing
        party             text?   the person who brings it into the claim
        home              text?   where that person lives
        """)),
)  # fmt: skip

INPUTS: dict[str, Input] = {item.name: item for item in _ALL}
MADE = ("subject", "component_input")
