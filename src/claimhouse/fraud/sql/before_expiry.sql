-- title: Loss just before the policy ended
-- class: lookup
-- indicator: the loss came {days} days before the last of the cover, which ended on {ended_on}
-- explanation: A last chance to claim. Policies end all the time, so this counts beside other rules.
-- source: Ohio Department of Insurance red flags (loss just before expiry)
-- weight: 0.4
-- reach: self
-- inputs: subject, claim_input, policy_input
-- parameters:
--   days days 7 up to so many days before the end
-- values:
--   ended_on  date   first day without cover
--   days      count  days from the loss to it
SELECT
    c.claim_id,
    CAST(1 AS DOUBLE) AS score,
    p.ended_on,
    CAST(DATE_DIFF('day', c.loss_date, p.ended_on) AS BIGINT) AS days
FROM subject AS s
INNER JOIN claim_input AS c ON c.claim_id = s.claim_id
INNER JOIN policy_input AS p ON p.policy_id = c.policy_id
WHERE DATE_DIFF('day', c.loss_date, p.ended_on) BETWEEN 1 AND CAST($days AS BIGINT)
ORDER BY c.claim_id
