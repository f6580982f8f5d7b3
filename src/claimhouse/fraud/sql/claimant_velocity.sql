-- title: The same claimant again and again
-- class: windowed
-- indicator: {in_90} claims of the same claimant within 90 days, {in_30} within 30, {in_7} within 7
-- explanation: One person with many losses in a short time. Bad luck comes in twos and threes; thresholds leave those
--   out, and a fleet's losses on one policy.
-- source: NICB indicators (claimant with several recent losses); Zalma
-- weight: 0.65
-- reach: claimant
-- within: 90
-- inputs: subject, claim_input, link_input
-- then: bursts
-- parameters:
--   claims_7 count 3 claims within 7 days that make it fire
--   claims_30 count 4 claims within 30 days that make it fire
--   claims_90 count 4 claims within 90 days that make it fire
--   parties count 1 different claimants at least
--   homes count 2 different policies at least: a fleet has one
--   hub count 60 a value that more claims share is a switchboard or an agent, and left out
-- values:
--   parties  count  different claimants in the busiest 90 days
--   homes    count  different policies in them
--   in_7     count  most claims within 7 days, this one among them
--   in_30    count  within 30 days
--   in_90    count  within 90 days
WITH reached AS (
    SELECT DISTINCT l.value
    FROM subject AS s
    INNER JOIN link_input AS l ON l.claim_id = s.claim_id
    WHERE l.kind = 'claimant'
)

SELECT
    l.claim_id,
    l.value,
    l.party,
    CAST(c.policy_id AS VARCHAR) AS home,
    c.reported_on AS day
FROM link_input AS l
INNER JOIN reached AS r ON r.value = l.value
INNER JOIN claim_input AS c ON c.claim_id = l.claim_id
WHERE l.kind = 'claimant'
ORDER BY l.claim_id, l.value, l.party
