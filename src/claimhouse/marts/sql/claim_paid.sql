-- title: Paid per claim
-- definition: Sum of payments up to the valuation, corrections included; indemnity and expense apart. Claims without a
--   payment are listed with 0 in their policy's currency.
-- source: NAIC Annual Statement Instructions, Schedule P (loss and LAE paid)
-- rows: one per claim and currency
-- inputs: claim_input, payment_input
-- parameters: valuation, line
-- columns:
--   claim_id        key    the claim
--   currency        text   of the amounts
--   indemnity_paid  money  paid as indemnity
--   expense_paid    money  paid as expense (LAE)
--   paid            money  both
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
        p.claim_id,
        p.currency,
        p.cost_type,
        p.amount
    FROM payment_input AS p
    INNER JOIN claim_input AS c ON c.claim_id = p.claim_id
    WHERE
        CAST(p.paid_at AS DATE) <= CAST($valuation AS DATE)
        AND (CAST($line AS VARCHAR) IS NULL OR c.line = CAST($line AS VARCHAR))
)

SELECT
    m.claim_id,
    m.currency,
    SUM(CASE WHEN m.cost_type = 'expense' THEN 0 ELSE m.amount END) AS indemnity_paid,
    SUM(CASE WHEN m.cost_type = 'expense' THEN m.amount ELSE 0 END) AS expense_paid,
    SUM(m.amount) AS paid
FROM movement_of AS m
GROUP BY m.claim_id, m.currency
ORDER BY m.claim_id, m.currency
