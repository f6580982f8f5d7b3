-- title: Large losses
-- definition: Claims whose incurred (gross of recoveries) reaches the threshold, largest first, at the valuation.
-- source: ClaimCenter large loss report (the columns); amounts as in claim_money
-- rows: one per claim and currency
-- inputs: claim_money
-- parameters: valuation, line, threshold
-- columns:
--   claim_number       text   the claim
--   loss_date          date   day of the loss
--   status             text   as the insurer names it
--   line               text   line of business
--   cause              text?  kind of loss
--   catastrophe_code   text?  of the event it belongs to
--   currency           text   of the amounts
--   indemnity_reserve  money  loss reserve
--   expense_reserve    money  expense reserve
--   indemnity_paid     money  loss paid
--   expense_paid       money  expense paid
--   salvage            money  received from salvage
--   subrogation        money  received from subrogation
--   incurred           money  paid + outstanding
--   net_incurred       money  incurred - salvage - subrogation
SELECT
    m.claim_number,
    m.loss_date,
    m.status,
    m.line,
    m.cause,
    m.catastrophe_code,
    m.currency,
    m.indemnity_reserve,
    m.expense_reserve,
    m.indemnity_paid,
    m.expense_paid,
    m.salvage,
    m.subrogation,
    m.incurred,
    m.net_incurred
FROM claim_money AS m
WHERE
    m.incurred >= CAST($threshold AS DECIMAL(18, 2))
    AND (CAST($line AS VARCHAR) IS NULL OR m.line = CAST($line AS VARCHAR))
ORDER BY m.incurred DESC, m.claim_number, m.currency
