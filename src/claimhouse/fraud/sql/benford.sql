-- title: First digits that amounts do not have
-- class: statistics
-- indicator: {share} of the provider's {invoices} invoices in three years begin with {digit}; its digits are far from
--   Benford's law (chi-square {chi_square})
-- explanation: First digits of honest bills follow Benford's law roughly; invented amounts do not. Price lists with
--   few prices break it innocently. Only claims with an invoice that begins with an over-frequent digit are told.
-- source: Benford 1938; Nigrini, Benford's Law (2012); ACFE fraud examiners manual
-- weight: 0.5
-- reach: all
-- inputs: subject, invoice_input, leading
-- parameters:
--   invoices count 12 invoices of a provider in the three years at least
--   chi_square ratio 26.1 of nine digits; 26.1 is passed by one in a thousand
--   excess ratio 1.5 a digit is over-frequent from so many times its share on
-- values:
--   invoices    count  the provider's invoices in the three years
--   digit       count  first digit on this claim
--   share       ratio  of the provider's invoices that begin with it
--   chi_square  ratio  distance of the provider's digits from Benford's
WITH first AS (
    SELECT
        i.claim_id,
        i.provider_id,
        l.digit,
        l.expected,
        CAST(EXTRACT(YEAR FROM i.invoiced_on) AS BIGINT) AS year
    FROM invoice_input AS i
    INNER JOIN leading AS l ON i.amount >= l.low AND i.amount < l.high
),

spell AS (
    SELECT f.provider_id, f.claim_id, f.digit, f.year AS period FROM first AS f
    UNION ALL
    SELECT f.provider_id, f.claim_id, f.digit, f.year + 1 AS period FROM first AS f
    UNION ALL
    SELECT f.provider_id, f.claim_id, f.digit, f.year + 2 AS period FROM first AS f
),

size AS (
    SELECT
        s.provider_id,
        s.period,
        COUNT(*) AS invoices
    FROM spell AS s
    GROUP BY s.provider_id, s.period
),

digit AS (
    SELECT DISTINCT
        l.digit,
        l.expected
    FROM leading AS l
),

seen AS (
    SELECT
        s.provider_id,
        s.period,
        s.digit,
        COUNT(*) AS times
    FROM spell AS s
    GROUP BY s.provider_id, s.period, s.digit
),

compared AS (
    SELECT
        z.provider_id,
        z.period,
        z.invoices,
        d.digit,
        CAST(COALESCE(n.times, 0) AS DOUBLE) AS times,
        d.expected * CAST(z.invoices AS DOUBLE) AS wanted
    FROM size AS z
    CROSS JOIN digit AS d
    LEFT JOIN seen AS n ON n.provider_id = z.provider_id AND n.period = z.period AND n.digit = d.digit
    WHERE z.invoices >= CAST($invoices AS BIGINT)
),

chi AS (
    SELECT
        c.provider_id,
        c.period,
        c.invoices,
        SUM(
            CAST((c.times - c.wanted) * (c.times - c.wanted) AS DOUBLE) / CAST(NULLIF(c.wanted, 0) AS DOUBLE)
        ) AS chi_square
    FROM compared AS c
    GROUP BY c.provider_id, c.period, c.invoices
),

found AS (
    SELECT
        p.claim_id,
        x.invoices,
        p.digit,
        CAST(c.times AS DOUBLE) / CAST(NULLIF(x.invoices, 0) AS DOUBLE) AS share,
        x.chi_square,
        ROW_NUMBER() OVER (
            PARTITION BY p.claim_id ORDER BY x.chi_square DESC, x.provider_id, x.period, p.digit
        ) AS place
    FROM subject AS s
    INNER JOIN spell AS p ON p.claim_id = s.claim_id
    INNER JOIN chi AS x ON x.provider_id = p.provider_id AND x.period = p.period
    INNER JOIN compared AS c ON c.provider_id = p.provider_id AND c.period = p.period AND c.digit = p.digit
    WHERE x.chi_square >= CAST($chi_square AS DOUBLE) AND c.times >= CAST($excess AS DOUBLE) * c.wanted
)

SELECT
    f.claim_id,
    LEAST(CAST(1 AS DOUBLE), ROUND(
        0.5 + CAST(f.chi_square - CAST($chi_square AS DOUBLE) AS DOUBLE) / CAST(60 AS DOUBLE), 1
    )) AS score,
    f.invoices,
    f.digit,
    ROUND(f.share, 2) AS share,
    ROUND(f.chi_square, 0) AS chi_square
FROM found AS f
WHERE f.place = 1
ORDER BY f.claim_id
