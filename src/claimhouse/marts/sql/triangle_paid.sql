-- title: Paid loss triangle
-- definition: Payments by accident period of the loss and age of the payment, cumulative, valued at a date.
-- source: Friedland, Estimating Unpaid Claims Using Basic Techniques (CAS 2010), ch. 5; Solvency II S.19.01
-- rows: one per accident period and age
-- inputs: claim_input, payment_input
-- parameters: valuation, line
-- then: cells
SELECT
    'paid' AS measure,
    p.currency,
    c.loss_date,
    CAST(p.paid_at AS DATE) AS moved_on,
    p.amount
FROM payment_input AS p
INNER JOIN claim_input AS c ON c.claim_id = p.claim_id
WHERE
    CAST(p.paid_at AS DATE) <= CAST($valuation AS DATE)
    AND (CAST($line AS VARCHAR) IS NULL OR c.line = CAST($line AS VARCHAR))
