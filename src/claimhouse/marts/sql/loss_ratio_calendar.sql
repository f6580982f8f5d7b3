-- title: Loss ratio by calendar year
-- definition: Payments in a calendar year + change of the case reserves in it, for losses of whatever year / premium earned
--   in that year, up to the valuation. Not to be mixed with the accident year's.
-- source: Friedland (CAS 2010), ch. 5 (calendar year data)
-- rows: one per line of business, currency and calendar year
-- inputs: claim_input, payment_input, reserve_input, earned_premium
-- parameters: valuation, line
-- columns:
--   line            text    line of business
--   currency        text    of the amounts
--   calendar_year   count   year of the booking
--   paid            money   paid in the year
--   reserve_change  money   outstanding at its end - outstanding at its beginning
--   incurred        money   paid + reserve change
--   earned_premium  amount  earned in the year
--   loss_ratio      ratio?  incurred / earned premium
WITH booked AS (
    SELECT
        p.claim_id,
        p.currency,
        CAST(p.paid_at AS DATE) AS booked_on,
        p.amount AS paid,
        0 AS reserve_change
    FROM payment_input AS p
    UNION ALL
    SELECT
        r.claim_id,
        r.currency,
        CAST(r.booked_at AS DATE) AS booked_on,
        0 AS paid,
        r.amount AS reserve_change
    FROM reserve_input AS r
),

side AS (
    SELECT
        c.line,
        b.currency,
        CAST(EXTRACT(YEAR FROM b.booked_on) AS BIGINT) AS calendar_year,
        b.paid,
        b.reserve_change,
        CAST(0 AS DOUBLE) AS earned_premium
    FROM booked AS b
    INNER JOIN claim_input AS c ON c.claim_id = b.claim_id
    WHERE
        b.booked_on <= CAST($valuation AS DATE)
        AND (CAST($line AS VARCHAR) IS NULL OR c.line = CAST($line AS VARCHAR))
    UNION ALL
    SELECT
        e.line,
        e.currency,
        e.year AS calendar_year,
        0 AS paid,
        0 AS reserve_change,
        e.earned_premium
    FROM earned_premium AS e
),

added AS (
    SELECT
        s.line,
        s.currency,
        s.calendar_year,
        SUM(s.paid) AS paid,
        SUM(s.reserve_change) AS reserve_change,
        SUM(s.earned_premium) AS earned_premium
    FROM side AS s
    GROUP BY s.line, s.currency, s.calendar_year
)

SELECT
    a.line,
    a.currency,
    a.calendar_year,
    a.paid,
    a.reserve_change,
    a.paid + a.reserve_change AS incurred,
    a.earned_premium,
    CAST(a.paid + a.reserve_change AS DOUBLE) / CAST(NULLIF(a.earned_premium, 0) AS DOUBLE) AS loss_ratio
FROM added AS a
ORDER BY a.line, a.currency, a.calendar_year
