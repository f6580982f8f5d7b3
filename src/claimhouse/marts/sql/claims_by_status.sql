-- title: Claims by status
-- definition: Number of claims by line and status, as they stand at the moment that is read.
-- source: the insurer's own words of status; open as in Schedule P part 5 (claims outstanding)
-- rows: one per line of business and status
-- inputs: claim_input
-- parameters: line
-- columns:
--   line    text   line of business
--   status  text   as the insurer names it
--   claims  count  claims in it
--   open    count  of these, claims that are not closed
SELECT
    c.line,
    c.status,
    COUNT(*) AS claims,
    CAST(SUM(CASE WHEN c.closed_on IS NULL THEN 1 ELSE 0 END) AS BIGINT) AS open
FROM claim_input AS c
WHERE CAST($line AS VARCHAR) IS NULL OR c.line = CAST($line AS VARCHAR)
GROUP BY c.line, c.status
ORDER BY c.line, c.status
