-- title: First digits of amounts from 1 to 999,999,999, and how often Benford's law expects each
-- inputs: none
-- values:
--   digit     count  1 to 9
--   expected  ratio  log10(1 + 1 / digit)
--   low       money  smallest amount
--   high      money  the first amount beyond
WITH power AS (
    SELECT CAST(1 AS BIGINT) AS size
    UNION ALL SELECT 10 AS size
    UNION ALL SELECT 100 AS size
    UNION ALL SELECT 1000 AS size
    UNION ALL SELECT 10000 AS size
    UNION ALL SELECT 100000 AS size
    UNION ALL SELECT 1000000 AS size
    UNION ALL SELECT 10000000 AS size
    UNION ALL SELECT 100000000 AS size
),

digit AS (
    SELECT 1 AS digit, CAST(0.30103 AS DOUBLE) AS expected
    UNION ALL SELECT 2 AS digit, 0.17609 AS expected
    UNION ALL SELECT 3 AS digit, 0.12494 AS expected
    UNION ALL SELECT 4 AS digit, 0.09691 AS expected
    UNION ALL SELECT 5 AS digit, 0.07918 AS expected
    UNION ALL SELECT 6 AS digit, 0.06695 AS expected
    UNION ALL SELECT 7 AS digit, 0.05799 AS expected
    UNION ALL SELECT 8 AS digit, 0.05115 AS expected
    UNION ALL SELECT 9 AS digit, 0.04576 AS expected
)

SELECT
    d.digit,
    d.expected,
    d.digit * p.size AS low,
    (d.digit + 1) * p.size AS high
FROM digit AS d
CROSS JOIN power AS p
