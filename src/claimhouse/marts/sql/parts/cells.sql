-- title: Movements placed into a triangle's cells and added up
-- definition: Periods are counted in months. A cell is an accident period of origin_months and an age in steps of
--   development_months since the period's first day; what moved before the loss counts at the first age. Every age up to
--   the valuation has a cell, with or without movement. Accident periods that began 80 years before the valuation, or
--   earlier, or begin after it are left out. link_ratio is the next age's cumulative value over this one's.
-- inputs: movement, numbers
-- parameters: valuation, origin_months, development_months
-- columns:
--   measure     text   what is added up
--   currency    text   of the values; empty for counts
--   origin      date   first day of the accident period
--   age         count  months from the period's first day to the end of the development period
--   increment   money  what moved within the development period
--   value       money  cumulative to the end of the development period
--   link_ratio  ratio? value at the next age / value at this age; NULL on the last diagonal
--   complete    flag   whether the development period had ended at the valuation
WITH valued AS (
    SELECT
        CAST(
            EXTRACT(YEAR FROM CAST($valuation AS DATE)) * 12 + EXTRACT(MONTH FROM CAST($valuation AS DATE)) - 1 AS BIGINT
        ) AS this_month,
        CAST(
            EXTRACT(YEAR FROM CAST(CAST($valuation AS DATE) + INTERVAL '1' DAY AS DATE)) * 12
            + EXTRACT(MONTH FROM CAST(CAST($valuation AS DATE) + INTERVAL '1' DAY AS DATE)) - 1 AS BIGINT
        ) AS next_month
),

placed AS (
    SELECT
        m.measure,
        m.currency,
        m.amount,
        CAST(FLOOR(
            CAST(EXTRACT(YEAR FROM m.loss_date) * 12 + EXTRACT(MONTH FROM m.loss_date) - 1 AS DOUBLE)
            / CAST($origin_months AS DOUBLE)
        ) AS BIGINT) * CAST($origin_months AS BIGINT) AS origin_month,
        CAST(EXTRACT(YEAR FROM m.moved_on) * 12 + EXTRACT(MONTH FROM m.moved_on) - 1 AS BIGINT) AS moved_month
    FROM movement AS m
),

aged AS (
    SELECT
        p.measure,
        p.currency,
        p.origin_month,
        CASE
            WHEN p.moved_month < p.origin_month THEN 0
            ELSE CAST(FLOOR(
                CAST(p.moved_month - p.origin_month AS DOUBLE) / CAST($development_months AS DOUBLE)
            ) AS BIGINT)
        END AS period,
        SUM(p.amount) AS amount
    FROM placed AS p
    INNER JOIN valued AS v ON p.origin_month > v.this_month - 960 AND p.origin_month <= v.this_month
    GROUP BY
        p.measure,
        p.currency,
        p.origin_month,
        CASE
            WHEN p.moved_month < p.origin_month THEN 0
            ELSE CAST(FLOOR(
                CAST(p.moved_month - p.origin_month AS DOUBLE) / CAST($development_months AS DOUBLE)
            ) AS BIGINT)
        END
),

bound AS (
    SELECT
        a.measure,
        a.currency,
        MIN(a.origin_month) AS first_month,
        MAX(a.origin_month) AS last_month
    FROM aged AS a
    GROUP BY a.measure, a.currency
),

origin AS (
    SELECT
        b.measure,
        b.currency,
        b.first_month + n.n * CAST($origin_months AS BIGINT) AS origin_month
    FROM bound AS b
    INNER JOIN numbers AS n ON b.first_month + n.n * CAST($origin_months AS BIGINT) <= b.last_month
),

grid AS (
    SELECT
        o.measure,
        o.currency,
        o.origin_month,
        n.n AS period,
        CASE
            WHEN o.origin_month + (n.n + 1) * CAST($development_months AS BIGINT) <= v.next_month THEN TRUE
            ELSE FALSE
        END AS complete
    FROM origin AS o
    CROSS JOIN valued AS v
    INNER JOIN numbers AS n ON o.origin_month + n.n * CAST($development_months AS BIGINT) <= v.this_month
),

cell AS (
    SELECT
        g.measure,
        g.currency,
        g.origin_month,
        g.period,
        g.complete,
        COALESCE(a.amount, 0) AS increment,
        SUM(COALESCE(a.amount, 0)) OVER (
            PARTITION BY g.measure, g.currency, g.origin_month
            ORDER BY g.period
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS value
    FROM grid AS g
    LEFT JOIN aged AS a
        ON
            a.measure = g.measure
            AND a.currency = g.currency
            AND a.origin_month = g.origin_month
            AND a.period = g.period
),

dated AS (
    SELECT
        c.measure,
        c.currency,
        c.origin_month,
        c.period,
        c.complete,
        c.increment,
        c.value,
        CAST(FLOOR(CAST(c.origin_month AS DOUBLE) / CAST(12 AS DOUBLE)) AS BIGINT) AS origin_year
    FROM cell AS c
)

SELECT
    d.measure,
    d.currency,
    CAST(CONCAT(
        CAST(d.origin_year AS VARCHAR), '-',
        LPAD(CAST(d.origin_month - d.origin_year * 12 + 1 AS VARCHAR), 2, '0'), '-01'
    ) AS DATE) AS origin,
    CAST((d.period + 1) * CAST($development_months AS BIGINT) AS BIGINT) AS age,
    d.increment,
    d.value,
    CAST(LEAD(d.value) OVER (
        PARTITION BY d.measure, d.currency, d.origin_month ORDER BY d.period
    ) AS DOUBLE) / CAST(NULLIF(d.value, 0) AS DOUBLE) AS link_ratio,
    d.complete
FROM dated AS d
ORDER BY d.measure, d.currency, d.origin_month, d.period
