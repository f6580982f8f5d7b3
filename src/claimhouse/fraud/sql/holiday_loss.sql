-- title: Loss on a holiday
-- class: row
-- indicator: the loss is dated {loss_date}, {holiday}
-- explanation: Nobody was there to see it, and offices were shut. One loss in ninety falls on such a day by chance,
--   so this counts only beside other rules.
-- source: Zalma on insurance fraud (losses on holidays and weekends); Ohio Department of Insurance red flags
-- weight: 0.12
-- reach: self
-- inputs: subject, claim_input, holidays
-- values:
--   loss_date  date  day of the loss
--   holiday    text  which holiday it is
SELECT
    c.claim_id,
    CAST(1 AS DOUBLE) AS score,
    c.loss_date,
    h.holiday
FROM subject AS s
INNER JOIN claim_input AS c ON c.claim_id = s.claim_id
INNER JOIN holidays AS h
    ON h.month = EXTRACT(MONTH FROM c.loss_date) AND h.day = EXTRACT(DAY FROM c.loss_date)
WHERE c.catastrophe_code IS NULL
ORDER BY c.claim_id
