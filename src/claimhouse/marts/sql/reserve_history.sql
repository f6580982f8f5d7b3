-- title: Reserve history of a claim
-- definition: Every change of the claim's case reserve and every payment in order of time, with what was outstanding, paid
--   and incurred after each.
-- source: ClaimCenter financial transactions
-- rows: one per transaction
-- inputs: claim_input, payment_input, reserve_input
-- parameters: claim, valuation
-- columns:
--   moved_at     moment  when it was booked
--   kind         text    reserve or payment
--   reason       text?   of a reserve change
--   cost_type    text    indemnity or expense
--   exposure_id  key     coverage and claimant it is booked on
--   currency     text    of the amounts
--   amount       money   signed change of the reserve, or amount paid
--   outstanding  money   case reserve after it
--   paid         money   paid after it
--   incurred     money   paid + outstanding after it
WITH moved AS (
    SELECT
        r.claim_id,
        r.booked_at AS moved_at,
        'reserve' AS kind,
        CAST(r.reserve_id AS VARCHAR) AS moved_id,
        r.reason,
        r.cost_type,
        r.exposure_id,
        r.currency,
        r.amount,
        r.amount AS reserved,
        0 AS paid
    FROM reserve_input AS r
    UNION ALL
    SELECT
        p.claim_id,
        p.paid_at AS moved_at,
        'payment' AS kind,
        CAST(p.payment_id AS VARCHAR) AS moved_id,
        CAST(NULL AS VARCHAR) AS reason,
        p.cost_type,
        p.exposure_id,
        p.currency,
        p.amount,
        0 AS reserved,
        p.amount AS paid
    FROM payment_input AS p
),

numbered AS (
    SELECT
        m.moved_at,
        m.kind,
        m.reason,
        m.cost_type,
        m.exposure_id,
        m.currency,
        m.amount,
        m.reserved,
        m.paid,
        ROW_NUMBER() OVER (
            ORDER BY m.moved_at, m.kind, m.moved_id, m.exposure_id, m.cost_type, m.amount
        ) AS place
    FROM moved AS m
    INNER JOIN claim_input AS c ON c.claim_id = m.claim_id
    WHERE
        (c.claim_number = CAST($claim AS VARCHAR) OR CAST(c.claim_id AS VARCHAR) = CAST($claim AS VARCHAR))
        AND CAST(m.moved_at AS DATE) <= CAST($valuation AS DATE)
)

SELECT
    n.moved_at,
    n.kind,
    n.reason,
    n.cost_type,
    n.exposure_id,
    n.currency,
    n.amount,
    SUM(n.reserved) OVER (
        PARTITION BY n.currency ORDER BY n.place ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS outstanding,
    SUM(n.paid) OVER (
        PARTITION BY n.currency ORDER BY n.place ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS paid,
    SUM(n.reserved + n.paid) OVER (
        PARTITION BY n.currency ORDER BY n.place ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS incurred
FROM numbered AS n
ORDER BY n.place
