-- title: Paid, outstanding, incurred and net incurred per claim
-- definition: incurred = paid + case outstanding; net incurred also subtracts what salvage and subrogation brought back.
--   All at the valuation; status is that of the moment that is read.
-- source: ClaimCenter financials (total incurred net = reserves + paid - recoveries)
-- rows: one per claim and currency
-- inputs: claim_input, claim_incurred, recovery_input
-- parameters: valuation, line
-- columns:
--   claim_id           key    the claim
--   claim_number       text   as people call it
--   line               text   line of business
--   loss_date          date   day of the loss
--   status             text   as the insurer names it
--   cause              text?  kind of loss
--   catastrophe_code   text?  of the event it belongs to
--   currency           text   of the amounts
--   indemnity_paid     money  paid as indemnity
--   expense_paid       money  paid as expense (LAE)
--   paid               money  both
--   indemnity_reserve  money  outstanding for indemnity
--   expense_reserve    money  outstanding for expense (LAE)
--   outstanding        money  both
--   incurred           money  paid + outstanding
--   salvage            money  received from salvage
--   subrogation        money  received from subrogation
--   net_incurred       money  incurred - salvage - subrogation
WITH side AS (
    SELECT
        i.claim_id,
        i.currency,
        i.indemnity_paid,
        i.expense_paid,
        i.indemnity_reserve,
        i.expense_reserve,
        0 AS salvage,
        0 AS subrogation
    FROM claim_incurred AS i
    UNION ALL
    SELECT
        r.claim_id,
        r.currency,
        0 AS indemnity_paid,
        0 AS expense_paid,
        0 AS indemnity_reserve,
        0 AS expense_reserve,
        CASE WHEN r.kind = 'salvage' THEN r.amount ELSE 0 END AS salvage,
        CASE WHEN r.kind = 'salvage' THEN 0 ELSE r.amount END AS subrogation
    FROM recovery_input AS r
    WHERE CAST(r.booked_at AS DATE) <= CAST($valuation AS DATE)
),

added AS (
    SELECT
        s.claim_id,
        s.currency,
        SUM(s.indemnity_paid) AS indemnity_paid,
        SUM(s.expense_paid) AS expense_paid,
        SUM(s.indemnity_reserve) AS indemnity_reserve,
        SUM(s.expense_reserve) AS expense_reserve,
        SUM(s.salvage) AS salvage,
        SUM(s.subrogation) AS subrogation
    FROM side AS s
    GROUP BY s.claim_id, s.currency
)

SELECT
    c.claim_id,
    c.claim_number,
    c.line,
    c.loss_date,
    c.status,
    c.cause,
    c.catastrophe_code,
    a.currency,
    a.indemnity_paid,
    a.expense_paid,
    a.indemnity_paid + a.expense_paid AS paid,
    a.indemnity_reserve,
    a.expense_reserve,
    a.indemnity_reserve + a.expense_reserve AS outstanding,
    a.indemnity_paid + a.expense_paid + a.indemnity_reserve + a.expense_reserve AS incurred,
    a.salvage,
    a.subrogation,
    a.indemnity_paid + a.expense_paid + a.indemnity_reserve + a.expense_reserve - a.salvage - a.subrogation AS net_incurred
FROM added AS a
INNER JOIN claim_input AS c ON c.claim_id = a.claim_id
WHERE CAST($line AS VARCHAR) IS NULL OR c.line = CAST($line AS VARCHAR)
ORDER BY c.claim_id, a.currency
