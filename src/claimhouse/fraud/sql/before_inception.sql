-- title: Loss before the policy began
-- class: lookup
-- indicator: the loss is dated {days} days before the policy's first day, {inception}
-- explanation: Cover was bought after the loss. A binder may promise cover a day or two before the policy is written.
-- source: Ohio Department of Insurance red flags (loss close to inception); Zalma
-- weight: 0.8
-- reach: self
-- inputs: subject, claim_input, policy_input
-- parameters:
--   binder days 1 days before inception that a binder explains
-- values:
--   inception  date   first day of cover
--   days       count  days from the loss to it
SELECT
    c.claim_id,
    CAST(1 AS DOUBLE) AS score,
    p.inception,
    CAST(DATE_DIFF('day', c.loss_date, p.inception) AS BIGINT) AS days
FROM subject AS s
INNER JOIN claim_input AS c ON c.claim_id = s.claim_id
INNER JOIN policy_input AS p ON p.policy_id = c.policy_id
WHERE DATE_DIFF('day', c.loss_date, p.inception) > CAST($binder AS BIGINT)
ORDER BY c.claim_id
