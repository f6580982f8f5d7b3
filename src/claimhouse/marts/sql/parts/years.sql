-- title: Calendar years from 1900 to 2899, the valuation's cut short
-- inputs: numbers
-- parameters: valuation
-- columns:
--   year       count  the calendar year
--   first_day  date   1 January
--   next_day   date   the day after the year, or after the valuation where that comes first
--   days       count  days of the whole year
WITH year_of AS (
    SELECT
        n.n + 1900 AS year,
        CAST(CONCAT(CAST(n.n + 1900 AS VARCHAR), '-01-01') AS DATE) AS first_day,
        CAST(CONCAT(CAST(n.n + 1901 AS VARCHAR), '-01-01') AS DATE) AS next_first
    FROM numbers AS n
)

SELECT
    CAST(y.year AS BIGINT) AS year,
    y.first_day,
    LEAST(y.next_first, CAST(CAST($valuation AS DATE) + INTERVAL '1' DAY AS DATE)) AS next_day,
    CAST(DATE_DIFF('day', y.first_day, y.next_first) AS BIGINT) AS days
FROM year_of AS y
WHERE y.first_day <= CAST($valuation AS DATE)
ORDER BY y.year
