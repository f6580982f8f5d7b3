-- title: Loss ratio by accident year
-- definition: Incurred (indemnity and expense, gross of recoveries, without IBNR) of the losses of a year / premium earned
--   in that year, at the valuation. Indemnity alone and paid alone beside it.
-- source: Werner and Modlin, Basic Ratemaking (CAS 2016), ch. 1 (loss and LAE ratio)
-- rows: one per line of business, currency and accident year
-- inputs: claim_input, claim_incurred, earned_premium
-- parameters: valuation, line
-- columns:
--   line                  text    line of business
--   currency              text    of the amounts
--   accident_year         count   year of the loss
--   paid                  money   indemnity and expense paid
--   incurred              money   paid + outstanding
--   earned_premium        amount  earned in the year
--   paid_ratio            ratio?  paid / earned premium
--   indemnity_loss_ratio  ratio?  incurred indemnity / earned premium
--   loss_ratio            ratio?  incurred / earned premium
WITH side AS (
    SELECT
        c.line,
        i.currency,
        CAST(EXTRACT(YEAR FROM c.loss_date) AS BIGINT) AS accident_year,
        i.paid,
        i.indemnity_paid + i.indemnity_reserve AS indemnity,
        i.incurred,
        CAST(0 AS DOUBLE) AS earned_premium
    FROM claim_incurred AS i
    INNER JOIN claim_input AS c ON c.claim_id = i.claim_id
    UNION ALL
    SELECT
        e.line,
        e.currency,
        e.year AS accident_year,
        0 AS paid,
        0 AS indemnity,
        0 AS incurred,
        e.earned_premium
    FROM earned_premium AS e
),

added AS (
    SELECT
        s.line,
        s.currency,
        s.accident_year,
        SUM(s.paid) AS paid,
        SUM(s.indemnity) AS indemnity,
        SUM(s.incurred) AS incurred,
        SUM(s.earned_premium) AS earned_premium
    FROM side AS s
    GROUP BY s.line, s.currency, s.accident_year
)

SELECT
    a.line,
    a.currency,
    a.accident_year,
    a.paid,
    a.incurred,
    a.earned_premium,
    CAST(a.paid AS DOUBLE) / CAST(NULLIF(a.earned_premium, 0) AS DOUBLE) AS paid_ratio,
    CAST(a.indemnity AS DOUBLE) / CAST(NULLIF(a.earned_premium, 0) AS DOUBLE) AS indemnity_loss_ratio,
    CAST(a.incurred AS DOUBLE) / CAST(NULLIF(a.earned_premium, 0) AS DOUBLE) AS loss_ratio
FROM added AS a
ORDER BY a.line, a.currency, a.accident_year
