-- title: Reserve development between two valuations
-- definition: (outstanding now of the claims reported by the prior valuation + payments on them since) - their outstanding
--   then. Positive: the prior reserve was too low.
-- source: NAIC Schedule P part 2 (one- and two-year development), on case reserves
-- rows: one per line of business, currency and accident year
-- inputs: claim_input, payment_input, reserve_input
-- parameters: prior, valuation, line
-- columns:
--   line              text    line of business
--   currency          text    of the amounts
--   accident_year     count   year of the loss
--   prior_reserve     money   outstanding at the prior valuation
--   reserve           money   outstanding at the valuation, of the same claims
--   paid_since        money   paid on them between the two
--   development       money   reserve + paid since - prior reserve
--   development_rate  ratio?  development / prior reserve
WITH moved AS (
    SELECT
        r.claim_id,
        r.currency,
        CASE WHEN CAST(r.booked_at AS DATE) <= CAST($prior AS DATE) THEN r.amount ELSE 0 END AS prior_reserve,
        r.amount AS reserve,
        0 AS paid_since
    FROM reserve_input AS r
    WHERE CAST(r.booked_at AS DATE) <= CAST($valuation AS DATE)
    UNION ALL
    SELECT
        p.claim_id,
        p.currency,
        0 AS prior_reserve,
        0 AS reserve,
        p.amount AS paid_since
    FROM payment_input AS p
    WHERE CAST(p.paid_at AS DATE) > CAST($prior AS DATE) AND CAST(p.paid_at AS DATE) <= CAST($valuation AS DATE)
),

added AS (
    SELECT
        c.line,
        m.currency,
        CAST(EXTRACT(YEAR FROM c.loss_date) AS BIGINT) AS accident_year,
        SUM(m.prior_reserve) AS prior_reserve,
        SUM(m.reserve) AS reserve,
        SUM(m.paid_since) AS paid_since
    FROM moved AS m
    INNER JOIN claim_input AS c ON c.claim_id = m.claim_id
    WHERE
        c.reported_on <= CAST($prior AS DATE)
        AND (CAST($line AS VARCHAR) IS NULL OR c.line = CAST($line AS VARCHAR))
    GROUP BY c.line, m.currency, CAST(EXTRACT(YEAR FROM c.loss_date) AS BIGINT)
)

SELECT
    a.line,
    a.currency,
    a.accident_year,
    a.prior_reserve,
    a.reserve,
    a.paid_since,
    a.reserve + a.paid_since - a.prior_reserve AS development,
    CAST(a.reserve + a.paid_since - a.prior_reserve AS DOUBLE)
    / CAST(NULLIF(a.prior_reserve, 0) AS DOUBLE) AS development_rate
FROM added AS a
ORDER BY a.line, a.currency, a.accident_year
