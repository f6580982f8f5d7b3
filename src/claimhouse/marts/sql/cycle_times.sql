-- title: Cycle times
-- definition: Mean whole days from loss to report, from report to the first payment (of claims that have one) and from
--   report to close (of claims that are closed), by year of the report.
-- source: NAIC Market Conduct Annual Statement (days to close)
-- rows: one per line of business and year of report
-- inputs: claim_input, payment_input
-- parameters: valuation, line
-- columns:
--   line                  text   line of business
--   report_year           count  year of the first notice
--   claims                count  claims reported in it by the valuation
--   loss_to_report        days?  mean days from loss to report
--   paid_claims           count  claims with a payment
--   report_to_payment     days?  mean days from report to first payment
--   closed_claims         count  claims closed by the valuation
--   report_to_close       days?  mean days from report to close
WITH first_payment AS (
    SELECT
        p.claim_id,
        MIN(CAST(p.paid_at AS DATE)) AS paid_on
    FROM payment_input AS p
    WHERE p.amount > 0 AND CAST(p.paid_at AS DATE) <= CAST($valuation AS DATE)
    GROUP BY p.claim_id
),

measured AS (
    SELECT
        c.line,
        CAST(EXTRACT(YEAR FROM c.reported_on) AS BIGINT) AS report_year,
        DATE_DIFF('day', c.loss_date, c.reported_on) AS loss_to_report,
        DATE_DIFF('day', c.reported_on, f.paid_on) AS report_to_payment,
        CASE
            WHEN c.closed_on <= CAST($valuation AS DATE) THEN DATE_DIFF('day', c.reported_on, c.closed_on)
        END AS report_to_close
    FROM claim_input AS c
    LEFT JOIN first_payment AS f ON f.claim_id = c.claim_id
    WHERE
        c.reported_on <= CAST($valuation AS DATE)
        AND (CAST($line AS VARCHAR) IS NULL OR c.line = CAST($line AS VARCHAR))
)

SELECT
    m.line,
    m.report_year,
    COUNT(*) AS claims,
    CAST(SUM(m.loss_to_report) AS DOUBLE) / CAST(NULLIF(COUNT(m.loss_to_report), 0) AS DOUBLE) AS loss_to_report,
    COUNT(m.report_to_payment) AS paid_claims,
    CAST(SUM(m.report_to_payment) AS DOUBLE) / CAST(NULLIF(COUNT(m.report_to_payment), 0) AS DOUBLE) AS report_to_payment,
    COUNT(m.report_to_close) AS closed_claims,
    CAST(SUM(m.report_to_close) AS DOUBLE) / CAST(NULLIF(COUNT(m.report_to_close), 0) AS DOUBLE) AS report_to_close
FROM measured AS m
GROUP BY m.line, m.report_year
ORDER BY m.line, m.report_year
