-- title: Earned premium
-- definition: Each premium evenly over its span (pro rata temporis): amount x days of the span in the year up to the
--   valuation / days of the span.
-- source: Werner and Modlin, Basic Ratemaking (CAS 2016), ch. 5 (earned premium)
-- rows: one per line of business, currency and calendar year
-- inputs: premium_input, years
-- parameters: valuation, line
-- columns:
--   line            text    line of business
--   currency        text    of the premium
--   year            count   calendar year
--   earned_premium  amount  earned in the year
SELECT
    p.line,
    p.currency,
    y.year,
    ROUND(SUM(
        CAST(p.amount AS DOUBLE)
        * (
            CAST(DATE_DIFF('day', GREATEST(p.earned_from, y.first_day), LEAST(p.earned_to, y.next_day)) AS DOUBLE)
            / CAST(NULLIF(DATE_DIFF('day', p.earned_from, p.earned_to), 0) AS DOUBLE)
        )
    ), 2) AS earned_premium
FROM premium_input AS p
INNER JOIN years AS y ON y.first_day < p.earned_to AND y.next_day > p.earned_from
WHERE CAST($line AS VARCHAR) IS NULL OR p.line = CAST($line AS VARCHAR)
GROUP BY p.line, p.currency, y.year
ORDER BY p.line, p.currency, y.year
