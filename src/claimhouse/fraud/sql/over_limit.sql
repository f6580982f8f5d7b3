-- title: Paid over the limit
-- class: row
-- indicator: {paid} paid on {coverage} against a limit of {limit_amount}
-- explanation: More indemnity left than the coverage allows. Goodwill and costs in addition are innocent; a tolerance
--   leaves small excesses out.
-- source: Ohio Department of Insurance, red flags (claim exceeds the coverage); OMG P&C coverage limit
-- weight: 0.75
-- reach: self
-- inputs: subject, exposure_input, share_input
-- parameters:
--   tolerance ratio 0.03 share of the limit that may be exceeded
-- values:
--   coverage      text   kind of coverage
--   paid          money  indemnity paid on it
--   limit_amount  money  the most that it pays per claim
WITH paid AS (
    SELECT
        e.claim_id,
        e.kind,
        e.limit_amount,
        SUM(p.amount) AS paid
    FROM subject AS s
    INNER JOIN exposure_input AS e ON e.claim_id = s.claim_id
    INNER JOIN share_input AS p ON p.claim_id = e.claim_id AND p.exposure_id = e.exposure_id
    WHERE p.cost_type = 'indemnity' AND e.limit_amount > 0
    GROUP BY e.claim_id, e.kind, e.limit_amount
),

ranked AS (
    SELECT
        p.claim_id,
        p.kind,
        p.paid,
        p.limit_amount,
        CAST(p.paid AS DOUBLE) / CAST(NULLIF(p.limit_amount, 0) AS DOUBLE) - 1 AS excess,
        ROW_NUMBER() OVER (PARTITION BY p.claim_id ORDER BY p.paid - p.limit_amount DESC, p.kind) AS place
    FROM paid AS p
    WHERE p.paid > p.limit_amount
)

SELECT
    r.claim_id,
    LEAST(CAST(1 AS DOUBLE), 0.7 + r.excess) AS score,
    r.kind AS coverage,
    r.paid,
    r.limit_amount
FROM ranked AS r
WHERE r.place = 1 AND r.excess > CAST($tolerance AS DOUBLE)
ORDER BY r.claim_id
