-- title: Reported late
-- class: row
-- indicator: reported {days} days after the loss
-- explanation: Time lets traces go and stories settle. Liability claims are honestly made late, so a line of third
--   parties has a longer limit of its own.
-- source: Ohio Department of Insurance red flags (late notice); NICB indicators
-- weight: 0.5
-- reach: self
-- inputs: subject, claim_input
-- parameters:
--   days days 90 from so many days on
--   third_party text liability the line of business whose claimants are strangers
--   third_party_days days 400 from so many days on, in that line
-- values:
--   days  count  days from loss to first notice
WITH lag AS (
    SELECT
        c.claim_id,
        DATE_DIFF('day', c.loss_date, c.reported_on) AS days,
        CASE
            WHEN c.line = CAST($third_party AS VARCHAR) THEN CAST($third_party_days AS BIGINT)
            ELSE CAST($days AS BIGINT)
        END AS most
    FROM subject AS s
    INNER JOIN claim_input AS c ON c.claim_id = s.claim_id
)

SELECT
    l.claim_id,
    LEAST(CAST(1 AS DOUBLE), 0.5 + 0.5 * (
        CAST(l.days - l.most AS DOUBLE) / CAST(NULLIF(l.most, 0) AS DOUBLE)
    )) AS score,
    CAST(l.days AS BIGINT) AS days
FROM lag AS l
WHERE l.days >= l.most
ORDER BY l.claim_id
