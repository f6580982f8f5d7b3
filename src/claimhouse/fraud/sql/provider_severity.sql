-- title: A provider dearer than its peers
-- class: statistics
-- indicator: {billed} billed by a provider whose median is {provider_median}, {times} times its peers' ({deviations}
--   robust deviations)
-- explanation: Bills that run well above those of the same kind of provider in the same line of business, over the
--   year and the one before. Specialists are honestly dearer: peers are of one kind, and the claim itself must be
--   dear.
-- source: Iglewicz and Hoaglin, modified z-score (median and MAD); NICB indicators (inflated estimates)
-- weight: 0.55
-- reach: all
-- inputs: subject, claim_input, invoice_input, provider_input
-- parameters:
--   claims count 4 claims of a provider in the two years at least
--   peers count 5 providers to compare with at least
--   deviations ratio 4 robust deviations above the peers' median from which it fires
--   times ratio 2.5 and so many times the peers' median
-- values:
--   billed           money   by the provider on this claim
--   provider_median  amount  of its claims in the two years
--   peer_median      amount  of its peers' medians
--   times            ratio   the one over the other
--   deviations       ratio   0.6745 (median - peers' median) / MAD
WITH bill AS (
    SELECT
        i.provider_id,
        p.kind,
        c.line,
        i.claim_id,
        CAST(SUM(i.amount) AS DOUBLE) AS billed,
        SUM(i.amount) AS exact,
        CAST(EXTRACT(YEAR FROM c.reported_on) AS BIGINT) AS year
    FROM invoice_input AS i
    INNER JOIN provider_input AS p ON p.provider_id = i.provider_id
    INNER JOIN claim_input AS c ON c.claim_id = i.claim_id
    GROUP BY i.provider_id, p.kind, c.line, i.claim_id, EXTRACT(YEAR FROM c.reported_on)
),

spell AS (
    SELECT b.provider_id, b.kind, b.line, b.claim_id, b.billed, b.exact, b.year AS period
    FROM bill AS b
    UNION ALL
    SELECT b.provider_id, b.kind, b.line, b.claim_id, b.billed, b.exact, b.year + 1 AS period
    FROM bill AS b
),

ordered AS (
    SELECT
        s.provider_id,
        s.kind,
        s.line,
        s.period,
        s.billed,
        ROW_NUMBER() OVER (
            PARTITION BY s.provider_id, s.line, s.period ORDER BY s.billed, s.claim_id
        ) AS place,
        COUNT(*) OVER (PARTITION BY s.provider_id, s.line, s.period) AS claims
    FROM spell AS s
),

own AS (
    SELECT
        o.provider_id,
        o.kind,
        o.line,
        o.period,
        CAST(SUM(o.billed) AS DOUBLE) / CAST(NULLIF(COUNT(*), 0) AS DOUBLE) AS median
    FROM ordered AS o
    WHERE o.claims >= CAST($claims AS BIGINT) AND o.place * 2 BETWEEN o.claims AND o.claims + 2
    GROUP BY o.provider_id, o.kind, o.line, o.period
),

ranked AS (
    SELECT
        o.kind,
        o.line,
        o.period,
        o.median,
        ROW_NUMBER() OVER (PARTITION BY o.kind, o.line, o.period ORDER BY o.median, o.provider_id) AS place,
        COUNT(*) OVER (PARTITION BY o.kind, o.line, o.period) AS peers
    FROM own AS o
),

middle AS (
    SELECT
        r.kind,
        r.line,
        r.period,
        CAST(SUM(r.median) AS DOUBLE) / CAST(NULLIF(COUNT(*), 0) AS DOUBLE) AS median
    FROM ranked AS r
    WHERE r.peers >= CAST($peers AS BIGINT) AND r.place * 2 BETWEEN r.peers AND r.peers + 2
    GROUP BY r.kind, r.line, r.period
),

distance AS (
    SELECT
        o.kind,
        o.line,
        o.period,
        ABS(o.median - m.median) AS away,
        ROW_NUMBER() OVER (
            PARTITION BY o.kind, o.line, o.period ORDER BY ABS(o.median - m.median), o.provider_id
        ) AS place,
        COUNT(*) OVER (PARTITION BY o.kind, o.line, o.period) AS peers
    FROM own AS o
    INNER JOIN middle AS m ON m.kind = o.kind AND m.line = o.line AND m.period = o.period
),

spread AS (
    SELECT
        d.kind,
        d.line,
        d.period,
        CAST(SUM(d.away) AS DOUBLE) / CAST(NULLIF(COUNT(*), 0) AS DOUBLE) AS mad
    FROM distance AS d
    WHERE d.place * 2 BETWEEN d.peers AND d.peers + 2
    GROUP BY d.kind, d.line, d.period
),

dear AS (
    SELECT
        o.provider_id,
        o.line,
        o.period,
        o.median,
        m.median AS peer_median,
        CAST(0.6745 * (o.median - m.median) AS DOUBLE) / CAST(NULLIF(s.mad, 0) AS DOUBLE) AS deviations
    FROM own AS o
    INNER JOIN middle AS m ON m.kind = o.kind AND m.line = o.line AND m.period = o.period
    INNER JOIN spread AS s ON s.kind = o.kind AND s.line = o.line AND s.period = o.period
    WHERE o.median >= CAST($times AS DOUBLE) * m.median
),

found AS (
    SELECT
        p.claim_id,
        p.exact AS billed,
        d.median,
        d.peer_median,
        d.deviations,
        ROW_NUMBER() OVER (PARTITION BY p.claim_id ORDER BY d.deviations DESC, d.provider_id, d.period) AS place
    FROM subject AS s
    INNER JOIN spell AS p ON p.claim_id = s.claim_id
    INNER JOIN dear AS d ON d.provider_id = p.provider_id AND d.line = p.line AND d.period = p.period
    WHERE
        d.deviations >= CAST($deviations AS DOUBLE)
        AND p.billed >= CAST($times AS DOUBLE) * d.peer_median
)

SELECT
    f.claim_id,
    LEAST(CAST(1 AS DOUBLE), ROUND(
        0.5 + CAST(f.deviations - CAST($deviations AS DOUBLE) AS DOUBLE) / CAST(10 AS DOUBLE), 1
    )) AS score,
    f.billed,
    ROUND(CAST(f.median AS DOUBLE) / CAST(100 AS DOUBLE), 0) * 100 AS provider_median,
    ROUND(CAST(f.peer_median AS DOUBLE) / CAST(100 AS DOUBLE), 0) * 100 AS peer_median,
    ROUND(CAST(f.median AS DOUBLE) / CAST(NULLIF(f.peer_median, 0) AS DOUBLE), 1) AS times,
    ROUND(f.deviations, 1) AS deviations
FROM found AS f
WHERE f.place = 1
ORDER BY f.claim_id
