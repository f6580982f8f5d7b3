-- title: Frequency, severity and pure premium by accident year
-- definition: frequency = claims / earned exposure units; severity = incurred / claims; pure premium = incurred / earned
--   exposure units. Claims and their incurred (indemnity and expense) by year of the loss, at the valuation, without IBNR.
-- source: Werner and Modlin, Basic Ratemaking (CAS 2016), ch. 1
-- rows: one per line of business, currency and accident year
-- inputs: claim_input, claim_incurred, earned_units
-- parameters: valuation, line
-- columns:
--   line           text    line of business
--   currency       text    of the amounts
--   accident_year  count   year of the loss
--   claims         count   claims reported by the valuation
--   incurred       money   paid + outstanding
--   earned_units   amount  unit-years in force in the year
--   frequency      ratio?  claims per unit-year
--   severity       amount? incurred per claim
--   pure_premium   amount? incurred per unit-year
WITH side AS (
    SELECT
        c.line,
        i.currency,
        CAST(EXTRACT(YEAR FROM c.loss_date) AS BIGINT) AS accident_year,
        1 AS claims,
        i.incurred,
        CAST(0 AS DOUBLE) AS earned_units
    FROM claim_incurred AS i
    INNER JOIN claim_input AS c ON c.claim_id = i.claim_id
    UNION ALL
    SELECT
        u.line,
        u.currency,
        u.year AS accident_year,
        0 AS claims,
        0 AS incurred,
        u.earned_units
    FROM earned_units AS u
),

added AS (
    SELECT
        s.line,
        s.currency,
        s.accident_year,
        CAST(SUM(s.claims) AS BIGINT) AS claims,
        SUM(s.incurred) AS incurred,
        SUM(s.earned_units) AS earned_units
    FROM side AS s
    GROUP BY s.line, s.currency, s.accident_year
)

SELECT
    a.line,
    a.currency,
    a.accident_year,
    a.claims,
    a.incurred,
    a.earned_units,
    CAST(a.claims AS DOUBLE) / CAST(NULLIF(a.earned_units, 0) AS DOUBLE) AS frequency,
    CAST(a.incurred AS DOUBLE) / CAST(NULLIF(a.claims, 0) AS DOUBLE) AS severity,
    CAST(a.incurred AS DOUBLE) / CAST(NULLIF(a.earned_units, 0) AS DOUBLE) AS pure_premium
FROM added AS a
ORDER BY a.line, a.currency, a.accident_year
