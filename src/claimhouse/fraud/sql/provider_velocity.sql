-- title: A provider far busier than usual
-- class: windowed
-- indicator: {claims} claims of one provider within {days} days, {usual} being usual for it
-- explanation: A shop or clinic that suddenly has a crowd: staged losses are worked off together. Catastrophes do the
--   same honestly and are left out; a busy provider is measured by its own year.
-- source: NICB indicators (provider activity); Coalition Against Insurance Fraud
-- weight: 0.55
-- reach: provider
-- within: 182 + days
-- inputs: subject, claim_input, link_input
-- parameters:
--   days days 14 length of the window
--   claims count 6 claims within it at least
--   deviations ratio 4 standard deviations of a Poisson count above the provider's own year
-- values:
--   claims  count  claims in the busiest window that this one is in
--   days    count  length of the window
--   usual   ratio  what the provider's year would bring in as long
WITH billed AS (
    SELECT DISTINCT l.value
    FROM subject AS s
    INNER JOIN link_input AS l ON l.claim_id = s.claim_id
    WHERE l.kind = 'provider'
),

visit AS (
    SELECT DISTINCT
        l.value,
        l.claim_id,
        c.reported_on AS day
    FROM link_input AS l
    INNER JOIN billed AS b ON b.value = l.value
    INNER JOIN claim_input AS c ON c.claim_id = l.claim_id
    WHERE l.kind = 'provider' AND c.catastrophe_code IS NULL
),

ending AS (
    SELECT
        e.value,
        e.claim_id,
        e.day,
        SUM(
            CASE WHEN DATE_DIFF('day', v.day, e.day) BETWEEN 0 AND CAST($days AS BIGINT) - 1 THEN 1 ELSE 0 END
        ) AS claims,
        CAST(SUM(CASE WHEN ABS(DATE_DIFF('day', v.day, e.day)) <= 182 THEN 1 ELSE 0 END) AS DOUBLE) AS yearly
    FROM visit AS e
    INNER JOIN visit AS v ON v.value = e.value
    WHERE ABS(DATE_DIFF('day', v.day, e.day)) <= 182
    GROUP BY e.value, e.claim_id, e.day
),

crowd AS (
    SELECT
        e.value,
        e.day,
        e.claims,
        CAST(e.yearly * CAST($days AS DOUBLE) AS DOUBLE) / CAST(365 AS DOUBLE) AS usual
    FROM ending AS e
    WHERE e.claims >= CAST($claims AS BIGINT)
),

ranked AS (
    SELECT
        v.claim_id,
        c.claims,
        c.usual,
        ROW_NUMBER() OVER (PARTITION BY v.claim_id ORDER BY c.claims DESC, c.usual, c.value, c.day) AS place
    FROM subject AS s
    INNER JOIN visit AS v ON v.claim_id = s.claim_id
    INNER JOIN crowd AS c ON c.value = v.value
    WHERE
        DATE_DIFF('day', v.day, c.day) BETWEEN 0 AND CAST($days AS BIGINT) - 1
        AND c.claims > c.usual
        AND (c.claims - c.usual) * (c.claims - c.usual)
        >= CAST($deviations AS DOUBLE) * CAST($deviations AS DOUBLE) * c.usual
)

SELECT
    r.claim_id,
    LEAST(CAST(1 AS DOUBLE), 0.6 + 0.1 * CAST(r.claims - CAST($claims AS BIGINT) AS DOUBLE)) AS score,
    CAST(r.claims AS BIGINT) AS claims,
    CAST($days AS BIGINT) AS days,
    ROUND(r.usual, 1) AS usual
FROM ranked AS r
WHERE r.place = 1
ORDER BY r.claim_id
