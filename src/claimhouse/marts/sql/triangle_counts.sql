-- title: Claim count triangles: reported, closed, closed with payment
-- definition: Claims by accident period and the age at which they were reported, closed (their last closing, as the
--   claim stands), and closed with a positive amount paid by the valuation.
-- source: Friedland, Estimating Unpaid Claims Using Basic Techniques (CAS 2010), ch. 11; Schedule P part 5
-- rows: one per measure, accident period and age
-- inputs: claim_input, payment_input
-- parameters: valuation, line
-- then: cells
WITH paid AS (
    SELECT
        p.claim_id,
        SUM(p.amount) AS amount
    FROM payment_input AS p
    WHERE CAST(p.paid_at AS DATE) <= CAST($valuation AS DATE)
    GROUP BY p.claim_id
),

happened AS (
    SELECT
        'reported' AS measure,
        c.line,
        c.loss_date,
        c.reported_on AS moved_on
    FROM claim_input AS c
    UNION ALL
    SELECT
        'closed' AS measure,
        c.line,
        c.loss_date,
        c.closed_on AS moved_on
    FROM claim_input AS c
    UNION ALL
    SELECT
        'closed_with_payment' AS measure,
        c.line,
        c.loss_date,
        c.closed_on AS moved_on
    FROM claim_input AS c
    INNER JOIN paid AS p ON p.claim_id = c.claim_id
    WHERE p.amount > 0
)

SELECT
    h.measure,
    '' AS currency,
    h.loss_date,
    h.moved_on,
    CAST(1 AS DECIMAL(18, 0)) AS amount
FROM happened AS h
WHERE
    h.moved_on <= CAST($valuation AS DATE)
    AND (CAST($line AS VARCHAR) IS NULL OR h.line = CAST($line AS VARCHAR))
