-- title: Every payment a round amount
-- class: row
-- indicator: all {payments} payments are whole multiples of {unit}, {paid} together
-- explanation: Repairs and bills rarely come to whole thousands. An agreed settlement often does, so one round
--   payment says little and several say more.
-- source: NICB indicators (round-figure estimates and receipts); domain table of rules
-- weight: 0.35
-- reach: self
-- inputs: subject, payment_input
-- parameters:
--   unit money 1000 amounts that are multiples of this are round
--   smallest money 3000 the claim's payments together come to at least this
-- values:
--   payments  count  payments on the claim
--   paid      money  what they come to
--   unit      money  what they are multiples of
WITH paid AS (
    SELECT
        p.claim_id,
        COUNT(*) AS payments,
        SUM(p.amount) AS paid,
        SUM(CASE
            WHEN p.amount = CAST(FLOOR(
                CAST(p.amount AS DOUBLE) / CAST($unit AS DOUBLE)
            ) AS BIGINT) * CAST($unit AS DECIMAL(14, 2)) THEN 1
            ELSE 0
        END) AS round_payments
    FROM subject AS s
    INNER JOIN payment_input AS p ON p.claim_id = s.claim_id
    WHERE p.amount > 0
    GROUP BY p.claim_id
)

SELECT
    p.claim_id,
    CASE WHEN p.payments >= 3 THEN CAST(1 AS DOUBLE) WHEN p.payments = 2 THEN 0.8 ELSE 0.5 END AS score,
    p.payments,
    p.paid,
    CAST($unit AS DECIMAL(14, 2)) AS unit
FROM paid AS p
WHERE p.round_payments = p.payments AND p.paid >= CAST($smallest AS DECIMAL(14, 2))
ORDER BY p.claim_id
