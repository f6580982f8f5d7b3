-- title: Pairs of claims that share a telephone, an account, an address or a vehicle within some time
-- inputs: subject, claim_input, link_input
-- values:
--   claim_id  key    a claim of subject
--   other_id  key    the other claim
--   kind      text   what they share
--   apart     count  1 where different people at different addresses share it
WITH reached AS (
    SELECT DISTINCT
        l.kind,
        l.value
    FROM subject AS s
    INNER JOIN link_input AS l ON l.claim_id = s.claim_id
    WHERE l.kind IN ('phone', 'account', 'address', 'vin')
),

held AS (
    SELECT DISTINCT
        l.claim_id,
        l.kind,
        l.value,
        l.home,
        c.reported_on AS day
    FROM link_input AS l
    INNER JOIN reached AS r ON r.kind = l.kind AND r.value = l.value
    INNER JOIN claim_input AS c ON c.claim_id = l.claim_id
    WHERE l.kind IN ('phone', 'account', 'address', 'vin')
),

degree AS (
    SELECT
        h.kind,
        h.value,
        COUNT(DISTINCT h.claim_id) AS claims
    FROM held AS h
    GROUP BY h.kind, h.value
),

linked AS (
    SELECT
        h.claim_id,
        h.kind,
        h.value,
        h.home,
        h.day
    FROM held AS h
    INNER JOIN degree AS d ON d.kind = h.kind AND d.value = h.value
    WHERE d.claims BETWEEN 2 AND CAST($hub AS BIGINT)
)

SELECT
    a.claim_id,
    b.claim_id AS other_id,
    a.kind,
    MAX(CASE WHEN a.home <> b.home THEN 1 ELSE 0 END) AS apart
FROM subject AS s
INNER JOIN linked AS a ON a.claim_id = s.claim_id
INNER JOIN linked AS b ON b.kind = a.kind AND b.value = a.value
WHERE a.claim_id <> b.claim_id AND ABS(DATE_DIFF('day', a.day, b.day)) <= CAST($span AS BIGINT)
GROUP BY a.claim_id, b.claim_id, a.kind
