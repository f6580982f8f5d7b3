-- title: Backlog ageing
-- definition: Open claims by days since their report at the valuation: 0-7, 8-30, 31-60, over 60; by adjuster. Open is what
--   is open at the moment that is read.
-- source: claims practice (diary ageing); the bands are fixed here
-- rows: one per adjuster and band
-- inputs: claim_input
-- parameters: valuation, line
-- columns:
--   adjuster     text?  who handles the claims
--   band         text   0-7, 8-30, 31-60 or >60 days
--   claims       count  open claims
--   oldest_days  count  days since report of the oldest of them
WITH aged AS (
    SELECT
        c.adjuster,
        DATE_DIFF('day', c.reported_on, CAST($valuation AS DATE)) AS age
    FROM claim_input AS c
    WHERE
        c.closed_on IS NULL
        AND c.reported_on <= CAST($valuation AS DATE)
        AND (CAST($line AS VARCHAR) IS NULL OR c.line = CAST($line AS VARCHAR))
),

banded AS (
    SELECT
        a.adjuster,
        a.age,
        CASE WHEN a.age <= 7 THEN 1 WHEN a.age <= 30 THEN 2 WHEN a.age <= 60 THEN 3 ELSE 4 END AS band
    FROM aged AS a
)

SELECT
    b.adjuster,
    CASE WHEN b.band = 1 THEN '0-7' WHEN b.band = 2 THEN '8-30' WHEN b.band = 3 THEN '31-60' ELSE '>60' END AS band,
    COUNT(*) AS claims,
    CAST(MAX(b.age) AS BIGINT) AS oldest_days
FROM banded AS b
GROUP BY b.adjuster, b.band
ORDER BY b.adjuster, b.band
