-- title: The same loss twice
-- class: windowed
-- indicator: claim {other_claim} ({other_cause}) reported a loss to the same {shared} earlier, {days} days away
-- explanation: One loss, two claims: the same vehicle or building cannot well be lost twice within days. The later
--   claim is told. Another cause makes it less likely the same loss; a fleet in one storm has different vehicles.
-- source: NICB indicators (same vehicle, several claims); ISO ClaimSearch practice
-- weight: 0.8
-- reach: asset, vin
-- inputs: subject, claim_input, link_input
-- parameters:
--   days days 2 between the dates of loss at most
-- values:
--   other_claim  text   the claim that was made first
--   shared       text   what both are about: asset or vin
--   days         count  days between the losses
--   cause        text?  of this claim
--   other_cause  text?  of the other
WITH pair AS (
    SELECT
        c.claim_id,
        l.kind,
        o.claim_number AS other_claim,
        c.cause,
        o.cause AS other_cause,
        CASE WHEN o.cause = c.cause THEN CAST(1 AS DOUBLE) ELSE 0.4 END AS score,
        ABS(DATE_DIFF('day', o.loss_date, c.loss_date)) AS days,
        ROW_NUMBER() OVER (
            PARTITION BY c.claim_id
            ORDER BY
                CASE WHEN o.cause = c.cause THEN 0 ELSE 1 END,
                ABS(DATE_DIFF('day', o.loss_date, c.loss_date)),
                l.kind,
                o.claim_number
        ) AS place
    FROM subject AS s
    INNER JOIN claim_input AS c ON c.claim_id = s.claim_id
    INNER JOIN link_input AS l ON l.claim_id = c.claim_id
    INNER JOIN link_input AS m ON m.kind = l.kind AND m.value = l.value
    INNER JOIN claim_input AS o ON o.claim_id = m.claim_id
    WHERE
        l.kind IN ('asset', 'vin')
        AND m.kind IN ('asset', 'vin')
        AND o.claim_id <> c.claim_id
        AND o.line = c.line
        AND (o.reported_on < c.reported_on OR (o.reported_on = c.reported_on AND o.claim_number < c.claim_number))
        AND ABS(DATE_DIFF('day', o.loss_date, c.loss_date)) <= CAST($days AS BIGINT)
)

SELECT
    p.claim_id,
    p.score,
    p.other_claim,
    p.kind AS shared,
    CAST(p.days AS BIGINT) AS days,
    p.cause,
    p.other_cause
FROM pair AS p
WHERE p.place = 1
ORDER BY p.claim_id
