-- title: Paid, outstanding, incurred and net incurred in total
-- definition: Sums of the figures per claim, at the valuation.
-- source: the figures per claim (claim_money)
-- rows: one per line of business and currency
-- inputs: claim_money
-- parameters: valuation, line
-- columns:
--   line          text   line of business
--   currency      text   of the amounts
--   claims        count  claims reported by the valuation
--   paid          money  indemnity and expense paid
--   outstanding   money  case reserve
--   incurred      money  paid + outstanding
--   salvage       money  received from salvage
--   subrogation   money  received from subrogation
--   net_incurred  money  incurred - salvage - subrogation
SELECT
    m.line,
    m.currency,
    COUNT(*) AS claims,
    SUM(m.paid) AS paid,
    SUM(m.outstanding) AS outstanding,
    SUM(m.incurred) AS incurred,
    SUM(m.salvage) AS salvage,
    SUM(m.subrogation) AS subrogation,
    SUM(m.net_incurred) AS net_incurred
FROM claim_money AS m
WHERE CAST($line AS VARCHAR) IS NULL OR m.line = CAST($line AS VARCHAR)
GROUP BY m.line, m.currency
ORDER BY m.line, m.currency
