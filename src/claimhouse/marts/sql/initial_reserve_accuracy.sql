-- title: Initial reserve accuracy
-- definition: Sum of the initial indemnity reserves / sum of the indemnity incurred at the valuation, over exposures that
--   were given an initial reserve (those closed without one are left out). Below 1: set too low.
-- source: claims practice; the definition above is all of it
-- rows: one per line of business, currency and accident year
-- inputs: claim_input, payment_input, reserve_input
-- parameters: valuation, line
-- columns:
--   line              text    line of business
--   currency          text    of the amounts
--   accident_year     count   year of the loss
--   exposures         count   exposures with an initial reserve
--   initial_reserve   money   sum of the first reserves
--   incurred          money   indemnity paid + outstanding of the same exposures
--   accuracy          ratio?  initial reserve / incurred
WITH first_reserve AS (
    SELECT
        r.claim_id,
        r.exposure_id,
        r.currency,
        SUM(r.amount) AS amount
    FROM reserve_input AS r
    WHERE
        r.reason = 'initial'
        AND r.cost_type <> 'expense'
        AND CAST(r.booked_at AS DATE) <= CAST($valuation AS DATE)
    GROUP BY r.claim_id, r.exposure_id, r.currency
),

moved AS (
    SELECT
        r.claim_id,
        r.exposure_id,
        r.currency,
        r.amount
    FROM reserve_input AS r
    WHERE r.cost_type <> 'expense' AND CAST(r.booked_at AS DATE) <= CAST($valuation AS DATE)
    UNION ALL
    SELECT
        p.claim_id,
        p.exposure_id,
        p.currency,
        p.amount
    FROM payment_input AS p
    WHERE p.cost_type <> 'expense' AND CAST(p.paid_at AS DATE) <= CAST($valuation AS DATE)
),

now AS (
    SELECT
        m.claim_id,
        m.exposure_id,
        m.currency,
        SUM(m.amount) AS amount
    FROM moved AS m
    GROUP BY m.claim_id, m.exposure_id, m.currency
),

added AS (
    SELECT
        c.line,
        f.currency,
        CAST(EXTRACT(YEAR FROM c.loss_date) AS BIGINT) AS accident_year,
        COUNT(*) AS exposures,
        SUM(f.amount) AS initial_reserve,
        SUM(n.amount) AS incurred
    FROM first_reserve AS f
    INNER JOIN claim_input AS c ON c.claim_id = f.claim_id
    INNER JOIN now AS n
        ON n.claim_id = f.claim_id AND n.exposure_id = f.exposure_id AND n.currency = f.currency
    WHERE CAST($line AS VARCHAR) IS NULL OR c.line = CAST($line AS VARCHAR)
    GROUP BY c.line, f.currency, CAST(EXTRACT(YEAR FROM c.loss_date) AS BIGINT)
)

SELECT
    a.line,
    a.currency,
    a.accident_year,
    a.exposures,
    a.initial_reserve,
    a.incurred,
    CAST(a.initial_reserve AS DOUBLE) / CAST(NULLIF(a.incurred, 0) AS DOUBLE) AS accuracy
FROM added AS a
ORDER BY a.line, a.currency, a.accident_year
