-- title: Payments split under the adjuster's authority
-- class: windowed
-- indicator: {payments} payments within {days} days, each within the authority of {authority}, together {paid}
-- explanation: What one payment would have sent to a supervisor was paid in pieces. Instalments weeks apart and small
--   sums are innocent.
-- source: NICB indicators (internal); structuring, as FinCEN describes it; domain table of rules
-- weight: 0.75
-- reach: self
-- inputs: subject, payment_input
-- parameters:
--   days days 7 within so many days
--   payments count 3 so many payments at least
--   smallest ratio 0.4 share of the authority that each comes to at least
-- values:
--   payments   count  payments in the window
--   days       count  length of the window
--   paid       money  what they come to
--   authority  money  what the claim's adjuster may approve alone
WITH paid AS (
    SELECT
        p.claim_id,
        p.payment_id,
        p.paid_on,
        p.amount,
        p.authority
    FROM subject AS s
    INNER JOIN payment_input AS p ON p.claim_id = s.claim_id
    WHERE
        p.amount > 0
        AND p.amount <= p.authority
        AND CAST(p.amount AS DOUBLE) >= CAST($smallest AS DOUBLE) * CAST(p.authority AS DOUBLE)
),

ending AS (
    SELECT
        e.claim_id,
        e.paid_on,
        e.authority,
        e.payment_id,
        COUNT(*) AS payments,
        SUM(p.amount) AS paid
    FROM paid AS e
    INNER JOIN paid AS p ON p.claim_id = e.claim_id
    WHERE DATE_DIFF('day', p.paid_on, e.paid_on) BETWEEN 0 AND CAST($days AS BIGINT) - 1
    GROUP BY e.claim_id, e.paid_on, e.authority, e.payment_id
),

ranked AS (
    SELECT
        e.claim_id,
        e.payments,
        e.paid,
        e.authority,
        ROW_NUMBER() OVER (PARTITION BY e.claim_id ORDER BY e.payments DESC, e.paid DESC, e.payment_id) AS place
    FROM ending AS e
    WHERE e.payments >= CAST($payments AS BIGINT) AND e.paid > e.authority
)

SELECT
    r.claim_id,
    CAST(1 AS DOUBLE) AS score,
    CAST(r.payments AS BIGINT) AS payments,
    CAST($days AS BIGINT) AS days,
    r.paid,
    r.authority
FROM ranked AS r
WHERE r.place = 1
ORDER BY r.claim_id
