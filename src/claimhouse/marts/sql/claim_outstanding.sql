-- title: Case outstanding per claim
-- definition: Sum of all changes of the case reserve up to the valuation: what the adjuster still expects to pay. Claims
--   without a reserve are listed with 0 in their policy's currency.
-- source: NAIC Annual Statement Instructions, Schedule P (case basis)
-- rows: one per claim and currency
-- inputs: claim_input, reserve_input
-- parameters: valuation, line
-- columns:
--   claim_id           key    the claim
--   currency           text   of the amounts
--   indemnity_reserve  money  outstanding for indemnity
--   expense_reserve    money  outstanding for expense (LAE)
--   outstanding        money  both
WITH movement_of AS (
    SELECT
        c.claim_id,
        c.currency,
        'indemnity' AS cost_type,
        0 AS amount
    FROM claim_input AS c
    WHERE
        c.reported_on <= CAST($valuation AS DATE)
        AND (CAST($line AS VARCHAR) IS NULL OR c.line = CAST($line AS VARCHAR))
    UNION ALL
    SELECT
        r.claim_id,
        r.currency,
        r.cost_type,
        r.amount
    FROM reserve_input AS r
    INNER JOIN claim_input AS c ON c.claim_id = r.claim_id
    WHERE
        CAST(r.booked_at AS DATE) <= CAST($valuation AS DATE)
        AND (CAST($line AS VARCHAR) IS NULL OR c.line = CAST($line AS VARCHAR))
)

SELECT
    m.claim_id,
    m.currency,
    SUM(CASE WHEN m.cost_type = 'expense' THEN 0 ELSE m.amount END) AS indemnity_reserve,
    SUM(CASE WHEN m.cost_type = 'expense' THEN m.amount ELSE 0 END) AS expense_reserve,
    SUM(m.amount) AS outstanding
FROM movement_of AS m
GROUP BY m.claim_id, m.currency
ORDER BY m.claim_id, m.currency
