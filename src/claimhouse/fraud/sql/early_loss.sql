-- title: Loss soon after the policy began
-- class: lookup
-- indicator: the loss came {days} days after the policy's first day, {inception}
-- explanation: Cover bought with the loss in sight. Most early losses are honest: about one claim in fifty is one by
--   chance, so the score falls with each day.
-- source: NICB indicators (loss within 30 days of inception); Ohio Department of Insurance red flags
-- weight: 0.35
-- reach: self
-- inputs: subject, claim_input, policy_input
-- parameters:
--   days days 30 up to so many days after inception
-- values:
--   inception  date   first day of cover
--   days       count  days from it to the loss
SELECT
    c.claim_id,
    1 - 0.7 * (CAST(DATE_DIFF('day', p.inception, c.loss_date) AS DOUBLE) / CAST($days AS DOUBLE)) AS score,
    p.inception,
    CAST(DATE_DIFF('day', p.inception, c.loss_date) AS BIGINT) AS days
FROM subject AS s
INNER JOIN claim_input AS c ON c.claim_id = s.claim_id
INNER JOIN policy_input AS p ON p.policy_id = c.policy_id
WHERE
    DATE_DIFF('day', p.inception, c.loss_date) BETWEEN 0 AND CAST($days AS BIGINT) - 1
    AND c.catastrophe_code IS NULL
ORDER BY c.claim_id
