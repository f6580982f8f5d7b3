-- title: The same invoice twice
-- class: windowed
-- indicator: invoice {invoice_number} over {amount} is there twice: on claim {other_claim} as {other_number}, {days} days
--   apart
-- explanation: One bill paid twice, written a little differently the second time: spaces, dashes, case and dots do
--   not count. Equal bills with different numbers are innocent; instalments under one number look the same and are
--   cleared.
-- source: NICB indicators (duplicate billing); domain table of rules
-- weight: 0.8
-- reach: provider
-- inputs: subject, invoice_input, claim_input
-- parameters:
--   days days 365 apart at most
-- values:
--   invoice_number  text   as on this claim
--   amount          money  of both
--   other_number    text   as written the other time
--   other_claim     text   the claim that the other one is on
--   days            count  days between their dates
WITH billed AS (
    SELECT DISTINCT i.provider_id
    FROM subject AS s
    INNER JOIN invoice_input AS i ON i.claim_id = s.claim_id
),

normal AS (
    SELECT
        i.invoice_id,
        i.claim_id,
        i.provider_id,
        i.invoice_number,
        i.amount,
        i.invoiced_on,
        REPLACE(REPLACE(REPLACE(REPLACE(REPLACE(REPLACE(
            UPPER(i.invoice_number), ' ', ''), '-', ''), '/', ''), '.', ''), '#', ''), '_', '') AS plain
    FROM invoice_input AS i
    INNER JOIN billed AS b ON b.provider_id = i.provider_id
),

pair AS (
    SELECT
        a.claim_id,
        a.invoice_number,
        a.amount,
        b.invoice_number AS other_number,
        b.claim_id AS other_id,
        ABS(DATE_DIFF('day', b.invoiced_on, a.invoiced_on)) AS days,
        ROW_NUMBER() OVER (
            PARTITION BY a.claim_id
            ORDER BY ABS(DATE_DIFF('day', b.invoiced_on, a.invoiced_on)), a.invoice_id, b.invoice_id
        ) AS place
    FROM subject AS s
    INNER JOIN normal AS a ON a.claim_id = s.claim_id
    INNER JOIN normal AS b
        ON
            b.provider_id = a.provider_id
            AND b.plain = a.plain
            AND b.amount = a.amount
            AND b.invoice_id <> a.invoice_id
    WHERE ABS(DATE_DIFF('day', b.invoiced_on, a.invoiced_on)) <= CAST($days AS BIGINT)
)

SELECT
    p.claim_id,
    CAST(1 AS DOUBLE) AS score,
    p.invoice_number,
    p.amount,
    p.other_number,
    c.claim_number AS other_claim,
    CAST(p.days AS BIGINT) AS days
FROM pair AS p
INNER JOIN claim_input AS c ON c.claim_id = p.other_id
WHERE p.place = 1
ORDER BY p.claim_id
