-- title: Loss after the policy ended
-- class: lookup
-- indicator: the loss is dated {days} days into the time without cover, which began on {ended_on}
-- explanation: There was no cover on the day of the loss. Days of grace after a missed premium are innocent and
--   common, so the first days score less.
-- source: Ohio Department of Insurance red flags (lapsed cover); Zalma
-- weight: 0.75
-- reach: self
-- inputs: subject, claim_input, policy_input
-- parameters:
--   grace days 5 days after the end that score half
-- values:
--   ended_on  date   first day without cover
--   days      count  days from it to the loss
SELECT
    c.claim_id,
    CASE
        WHEN DATE_DIFF('day', p.ended_on, c.loss_date) < CAST($grace AS BIGINT) THEN 0.5 ELSE CAST(1 AS DOUBLE)
    END AS score,
    p.ended_on,
    CAST(DATE_DIFF('day', p.ended_on, c.loss_date) AS BIGINT) AS days
FROM subject AS s
INNER JOIN claim_input AS c ON c.claim_id = s.claim_id
INNER JOIN policy_input AS p ON p.policy_id = c.policy_id
WHERE p.ended_on <= c.loss_date
ORDER BY c.claim_id
