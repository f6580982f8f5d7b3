-- title: Payments just within the adjuster's authority
-- class: row
-- indicator: payments just within the adjuster's authority of {authority}: {payments}, from {lowest} to {highest}
-- explanation: An amount of 90 to 100 % of what an adjuster may approve alone needs no second pair of eyes. Amounts
--   fall there by chance too; a claim is told where it has several, or nothing else.
-- source: NICB indicators (internal); segregation of duties; domain table of rules
-- weight: 0.4
-- reach: self
-- inputs: subject, payment_input
-- parameters:
--   share ratio 0.9 from this share of the authority on
-- values:
--   payments   count  payments in that range
--   lowest     money  the smallest of them
--   highest    money  the largest of them
--   authority  money  what the claim's adjuster may approve alone
WITH paid AS (
    SELECT
        p.claim_id,
        p.authority,
        p.amount,
        CASE
            WHEN
                CAST(p.amount AS DOUBLE) >= CAST($share AS DOUBLE) * CAST(p.authority AS DOUBLE)
                AND p.amount <= p.authority THEN 1
            ELSE 0
        END AS near
    FROM subject AS s
    INNER JOIN payment_input AS p ON p.claim_id = s.claim_id
    WHERE p.amount > 0 AND p.authority > 0
),

counted AS (
    SELECT
        p.claim_id,
        p.authority,
        COUNT(*) AS payments,
        SUM(p.near) AS near,
        MIN(CASE WHEN p.near = 1 THEN p.amount END) AS lowest,
        MAX(CASE WHEN p.near = 1 THEN p.amount END) AS highest
    FROM paid AS p
    GROUP BY p.claim_id, p.authority
)

SELECT
    c.claim_id,
    CASE
        WHEN c.near = c.payments AND c.near >= 2 THEN CAST(1 AS DOUBLE)
        WHEN c.near = c.payments THEN 0.6
        ELSE 0.5
    END AS score,
    CAST(c.near AS BIGINT) AS payments,
    c.lowest,
    c.highest,
    c.authority
FROM counted AS c
WHERE c.near >= 2 OR (c.near = 1 AND c.payments = 1)
ORDER BY c.claim_id
