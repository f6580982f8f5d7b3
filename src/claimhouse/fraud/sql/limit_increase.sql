-- title: Loss soon after a limit was raised
-- class: lookup
-- indicator: {days} days after the limit of {coverage} rose from {old_limit} to {new_limit}; {paid} paid
-- explanation: The cover that grew is the cover that is used. It tells most where more was paid than the old limit
--   had allowed.
-- source: Ohio Department of Insurance red flags (recent change of cover); NICB indicators
-- weight: 0.65
-- reach: self
-- inputs: subject, claim_input, limit_input, exposure_input, share_input
-- parameters:
--   days days 30 up to so many days after the change
-- values:
--   coverage   text   kind of coverage
--   old_limit  money  its limit before
--   new_limit  money  its limit since
--   days       count  days from the change to the loss
--   paid       money  indemnity paid on it
WITH risen AS (
    SELECT
        c.claim_id,
        n.kind,
        o.limit_amount AS old_limit,
        n.limit_amount AS new_limit,
        DATE_DIFF('day', n.valid_from, c.loss_date) AS days
    FROM subject AS s
    INNER JOIN claim_input AS c ON c.claim_id = s.claim_id
    INNER JOIN limit_input AS n ON n.policy_id = c.policy_id
    INNER JOIN limit_input AS o ON o.policy_id = n.policy_id AND o.kind = n.kind AND o.version = n.version - 1
    WHERE
        n.reason = 'limit_increase'
        AND n.limit_amount > o.limit_amount
        AND DATE_DIFF('day', n.valid_from, c.loss_date) BETWEEN 0 AND CAST($days AS BIGINT) - 1
),

paid AS (
    SELECT
        r.claim_id,
        r.kind,
        SUM(p.amount) AS paid
    FROM risen AS r
    INNER JOIN exposure_input AS e ON e.claim_id = r.claim_id AND e.kind = r.kind
    INNER JOIN share_input AS p ON p.claim_id = e.claim_id AND p.exposure_id = e.exposure_id
    WHERE p.cost_type = 'indemnity'
    GROUP BY r.claim_id, r.kind
),

ranked AS (
    SELECT
        r.claim_id,
        r.kind,
        r.old_limit,
        r.new_limit,
        r.days,
        COALESCE(p.paid, 0) AS paid,
        ROW_NUMBER() OVER (
            PARTITION BY r.claim_id ORDER BY COALESCE(p.paid, 0) - r.old_limit DESC, r.days, r.kind
        ) AS place
    FROM risen AS r
    INNER JOIN exposure_input AS e ON e.claim_id = r.claim_id AND e.kind = r.kind
    LEFT JOIN paid AS p ON p.claim_id = r.claim_id AND p.kind = r.kind
)

SELECT
    r.claim_id,
    CASE WHEN r.paid > r.old_limit THEN CAST(1 AS DOUBLE) ELSE 0.3 END AS score,
    r.kind AS coverage,
    r.old_limit,
    r.new_limit,
    CAST(r.days AS BIGINT) AS days,
    r.paid
FROM ranked AS r
WHERE r.place = 1
ORDER BY r.claim_id
