-- title: Closing ratio, closed without payment, reopen rate
-- definition: closing ratio = closings / (new claims + reopenings) of a calendar year; closed-no-pay ratio = closings of
--   claims without indemnity paid by the valuation / closings; reopen rate = reopenings / closings.
-- source: NAIC Market Conduct Annual Statement (claims closed with and without payment)
-- rows: one per line of business and calendar year
-- inputs: claim_input, status_input, payment_input
-- parameters: valuation, line
-- columns:
--   line                  text    line of business
--   year                  count   calendar year of the event
--   new_claims            count   reported in the year
--   reopened              count   reopenings in the year
--   closed                count   closings in the year
--   closed_no_pay         count   of these, of claims without indemnity
--   closing_ratio         ratio?  closed / (new + reopened); above 1 the backlog shrinks
--   closed_no_pay_ratio   ratio?  closed without indemnity / closed
--   reopen_rate           ratio?  reopened / closed
WITH indemnified AS (
    SELECT
        p.claim_id,
        SUM(p.amount) AS amount
    FROM payment_input AS p
    WHERE p.cost_type <> 'expense' AND CAST(p.paid_at AS DATE) <= CAST($valuation AS DATE)
    GROUP BY p.claim_id
),

happened AS (
    SELECT
        c.claim_id,
        c.line,
        c.reported_on AS happened_on,
        1 AS new_claims,
        0 AS reopened,
        0 AS closed,
        0 AS closed_no_pay
    FROM claim_input AS c
    UNION ALL
    SELECT
        c.claim_id,
        c.line,
        CAST(s.changed_at AS DATE) AS happened_on,
        0 AS new_claims,
        CASE WHEN s.status = 'reopened' THEN 1 ELSE 0 END AS reopened,
        CASE WHEN s.status = 'closed' THEN 1 ELSE 0 END AS closed,
        CASE WHEN s.status = 'closed' AND COALESCE(i.amount, 0) = 0 THEN 1 ELSE 0 END AS closed_no_pay
    FROM status_input AS s
    INNER JOIN claim_input AS c ON c.claim_id = s.claim_id
    LEFT JOIN indemnified AS i ON i.claim_id = s.claim_id
),

added AS (
    SELECT
        h.line,
        CAST(EXTRACT(YEAR FROM h.happened_on) AS BIGINT) AS year,
        CAST(SUM(h.new_claims) AS BIGINT) AS new_claims,
        CAST(SUM(h.reopened) AS BIGINT) AS reopened,
        CAST(SUM(h.closed) AS BIGINT) AS closed,
        CAST(SUM(h.closed_no_pay) AS BIGINT) AS closed_no_pay
    FROM happened AS h
    WHERE
        h.happened_on <= CAST($valuation AS DATE)
        AND (CAST($line AS VARCHAR) IS NULL OR h.line = CAST($line AS VARCHAR))
    GROUP BY h.line, CAST(EXTRACT(YEAR FROM h.happened_on) AS BIGINT)
)

SELECT
    a.line,
    a.year,
    a.new_claims,
    a.reopened,
    a.closed,
    a.closed_no_pay,
    CAST(a.closed AS DOUBLE) / CAST(NULLIF(a.new_claims + a.reopened, 0) AS DOUBLE) AS closing_ratio,
    CAST(a.closed_no_pay AS DOUBLE) / CAST(NULLIF(a.closed, 0) AS DOUBLE) AS closed_no_pay_ratio,
    CAST(a.reopened AS DOUBLE) / CAST(NULLIF(a.closed, 0) AS DOUBLE) AS reopen_rate
FROM added AS a
ORDER BY a.line, a.year
