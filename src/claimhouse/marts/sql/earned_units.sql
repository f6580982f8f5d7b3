-- title: Earned exposure units
-- definition: Units in force in each calendar year up to the valuation: units x days in force / days of the year. With
--   units = vehicles they are vehicle-years, with units = 1 policy-years. Never rows of a claim's exposures.
-- source: Werner and Modlin, Basic Ratemaking (CAS 2016), ch. 4 (earned exposures)
-- rows: one per line of business, currency and calendar year
-- inputs: in_force_input, years
-- parameters: valuation, line
-- columns:
--   line          text    line of business
--   currency      text    the policies' currency
--   year          count   calendar year
--   earned_units  amount  unit-years
SELECT
    f.line,
    f.currency,
    y.year,
    ROUND(SUM(
        CAST(f.units * DATE_DIFF('day', GREATEST(f.in_force_from, y.first_day), LEAST(f.in_force_to, y.next_day)) AS DOUBLE)
        / CAST(NULLIF(y.days, 0) AS DOUBLE)
    ), 6) AS earned_units
FROM in_force_input AS f
INNER JOIN years AS y ON y.first_day < f.in_force_to AND y.next_day > f.in_force_from
WHERE CAST($line AS VARCHAR) IS NULL OR f.line = CAST($line AS VARCHAR)
GROUP BY f.line, f.currency, y.year
ORDER BY f.line, f.currency, y.year
