-- title: Many claims under one telephone number
-- class: windowed
-- indicator: {in_90} claims of claimants with one telephone number within 90 days, {in_30} within 30, {in_7} within 7
-- explanation: Strangers who answer the same telephone: somebody makes the claims for them. A family shares a number
--   at one address, which is left out.
-- source: NICB indicators (shared telephone numbers)
-- weight: 0.75
-- reach: phone
-- within: 90
-- inputs: subject, claim_input, link_input
-- then: bursts
-- parameters:
--   claims_7 count 3 claims within 7 days that make it fire
--   claims_30 count 3 claims within 30 days that make it fire
--   claims_90 count 3 claims within 90 days that make it fire
--   parties count 3 different claimants at least
--   homes count 2 different addresses at least
--   hub count 60 a value that more claims share is a switchboard or an agent, and left out
-- values:
--   parties  count  different claimants in the busiest 90 days
--   homes    count  different addresses in them
--   in_7     count  most claims within 7 days, this one among them
--   in_30    count  within 30 days
--   in_90    count  within 90 days
WITH reached AS (
    SELECT DISTINCT l.value
    FROM subject AS s
    INNER JOIN link_input AS l ON l.claim_id = s.claim_id
    WHERE l.kind = 'phone'
)

SELECT
    l.claim_id,
    l.value,
    l.party,
    l.home,
    c.reported_on AS day
FROM link_input AS l
INNER JOIN reached AS r ON r.value = l.value
INNER JOIN claim_input AS c ON c.claim_id = l.claim_id
WHERE l.kind = 'phone'
ORDER BY l.claim_id, l.value, l.party
