-- title: Members that come together within days: claims that share a value, counted in windows of 7, 30 and 90 days
-- inputs: subject
-- values:
--   parties  count  different claimants in the busiest 90 days
--   homes    count  different addresses in them
--   in_7     count  most claims within 7 days, this one among them
--   in_30    count  within 30 days
--   in_90    count  within 90 days
WITH degree AS (
    SELECT
        m.value,
        COUNT(DISTINCT m.claim_id) AS claims
    FROM member AS m
    GROUP BY m.value
),

kept AS (
    SELECT DISTINCT
        m.claim_id,
        m.value,
        m.party,
        m.home,
        m.day
    FROM member AS m
    INNER JOIN degree AS d ON d.value = m.value
    WHERE d.claims BETWEEN 2 AND CAST($hub AS BIGINT)
),

spot AS (
    SELECT DISTINCT
        k.claim_id,
        k.value,
        k.day
    FROM kept AS k
),

ending AS (
    SELECT
        e.value,
        e.claim_id,
        e.day,
        COUNT(DISTINCT CASE WHEN DATE_DIFF('day', k.day, e.day) < 7 THEN k.claim_id END) AS in_7,
        COUNT(DISTINCT CASE WHEN DATE_DIFF('day', k.day, e.day) < 30 THEN k.claim_id END) AS in_30,
        COUNT(DISTINCT k.claim_id) AS in_90,
        COUNT(DISTINCT k.party) AS parties,
        COUNT(DISTINCT k.home) AS homes
    FROM spot AS e
    INNER JOIN kept AS k ON k.value = e.value
    WHERE DATE_DIFF('day', k.day, e.day) BETWEEN 0 AND 89
    GROUP BY e.value, e.claim_id, e.day
),

around AS (
    SELECT
        c.claim_id,
        c.value,
        MAX(e.parties) AS parties,
        MAX(e.homes) AS homes,
        MAX(CASE WHEN DATE_DIFF('day', c.day, e.day) < 7 THEN e.in_7 END) AS in_7,
        MAX(CASE WHEN DATE_DIFF('day', c.day, e.day) < 30 THEN e.in_30 END) AS in_30,
        MAX(e.in_90) AS in_90
    FROM subject AS s
    INNER JOIN spot AS c ON c.claim_id = s.claim_id
    INNER JOIN ending AS e ON e.value = c.value
    WHERE DATE_DIFF('day', c.day, e.day) BETWEEN 0 AND 89
    GROUP BY c.claim_id, c.value
),

ranked AS (
    SELECT
        a.claim_id,
        a.parties,
        a.homes,
        a.in_7,
        a.in_30,
        a.in_90,
        ROW_NUMBER() OVER (
            PARTITION BY a.claim_id ORDER BY a.in_90 DESC, a.in_30 DESC, a.in_7 DESC, a.value
        ) AS place
    FROM around AS a
    WHERE
        (
            a.in_7 >= CAST($claims_7 AS BIGINT)
            OR a.in_30 >= CAST($claims_30 AS BIGINT)
            OR a.in_90 >= CAST($claims_90 AS BIGINT)
        )
        AND a.parties >= CAST($parties AS BIGINT)
        AND a.homes >= CAST($homes AS BIGINT)
)

SELECT
    r.claim_id,
    LEAST(CAST(1 AS DOUBLE), 0.8 + 0.1 * CAST(r.in_90 - CAST($claims_90 AS BIGINT) AS DOUBLE)) AS score,
    r.parties,
    r.homes,
    r.in_7,
    r.in_30,
    r.in_90
FROM ranked AS r
WHERE r.place = 1
ORDER BY r.claim_id
