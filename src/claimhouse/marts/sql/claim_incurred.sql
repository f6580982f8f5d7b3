-- title: Incurred per claim
-- definition: incurred = paid + case outstanding, at the valuation.
-- source: Friedland (CAS 2010), ch. 3 (reported claims = paid + case outstanding)
-- rows: one per claim and currency
-- inputs: claim_paid, claim_outstanding
-- parameters: valuation, line
-- columns:
--   claim_id           key    the claim
--   currency           text   of the amounts
--   indemnity_paid     money  paid as indemnity
--   expense_paid       money  paid as expense (LAE)
--   paid               money  both
--   indemnity_reserve  money  outstanding for indemnity
--   expense_reserve    money  outstanding for expense (LAE)
--   outstanding        money  both
--   incurred           money  paid + outstanding
WITH side AS (
    SELECT
        p.claim_id,
        p.currency,
        p.indemnity_paid,
        p.expense_paid,
        0 AS indemnity_reserve,
        0 AS expense_reserve
    FROM claim_paid AS p
    UNION ALL
    SELECT
        o.claim_id,
        o.currency,
        0 AS indemnity_paid,
        0 AS expense_paid,
        o.indemnity_reserve,
        o.expense_reserve
    FROM claim_outstanding AS o
)

SELECT
    s.claim_id,
    s.currency,
    SUM(s.indemnity_paid) AS indemnity_paid,
    SUM(s.expense_paid) AS expense_paid,
    SUM(s.indemnity_paid + s.expense_paid) AS paid,
    SUM(s.indemnity_reserve) AS indemnity_reserve,
    SUM(s.expense_reserve) AS expense_reserve,
    SUM(s.indemnity_reserve + s.expense_reserve) AS outstanding,
    SUM(s.indemnity_paid + s.expense_paid + s.indemnity_reserve + s.expense_reserve) AS incurred
FROM side AS s
GROUP BY s.claim_id, s.currency
ORDER BY s.claim_id, s.currency
