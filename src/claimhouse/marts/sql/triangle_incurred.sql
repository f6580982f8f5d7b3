-- title: Incurred loss triangle
-- definition: Payments and changes of the case reserve by accident period and age; their sum to an age is paid +
--   outstanding at that age. Valued at a date.
-- source: Friedland, Estimating Unpaid Claims Using Basic Techniques (CAS 2010), ch. 5; Solvency II S.19.01
-- rows: one per accident period and age
-- inputs: claim_input, payment_input, reserve_input
-- parameters: valuation, line
-- then: cells
WITH moved AS (
    SELECT
        p.claim_id,
        p.currency,
        CAST(p.paid_at AS DATE) AS moved_on,
        p.amount
    FROM payment_input AS p
    UNION ALL
    SELECT
        r.claim_id,
        r.currency,
        CAST(r.booked_at AS DATE) AS moved_on,
        r.amount
    FROM reserve_input AS r
)

SELECT
    'incurred' AS measure,
    m.currency,
    c.loss_date,
    m.moved_on,
    m.amount
FROM moved AS m
INNER JOIN claim_input AS c ON c.claim_id = m.claim_id
WHERE
    m.moved_on <= CAST($valuation AS DATE)
    AND (CAST($line AS VARCHAR) IS NULL OR c.line = CAST($line AS VARCHAR))
