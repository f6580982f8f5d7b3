-- title: Paid and incurred triangles from the change log
-- definition: Each version of a row that holds amounts adds its paid and outstanding on the day from which the book said
--   so and takes them back on the day on which it said so no longer. So a book that overwrites its amounts, or mends or
--   deletes rows in place, has its triangle as it was seen at each age.
-- source: the lake's change log; ages as in the paid and incurred triangles
-- rows: one per measure, accident period and age
-- inputs: amount_history_input
-- parameters: valuation, line
-- then: cells
WITH said AS (
    SELECT
        h.line,
        h.currency,
        h.loss_date,
        h.valid_from AS moved_on,
        h.paid,
        h.outstanding
    FROM amount_history_input AS h
    UNION ALL
    SELECT
        h.line,
        h.currency,
        h.loss_date,
        h.valid_to AS moved_on,
        -h.paid AS paid,
        -h.outstanding AS outstanding
    FROM amount_history_input AS h
    WHERE h.valid_to IS NOT NULL
),

measured AS (
    SELECT
        'paid' AS measure,
        s.line,
        s.currency,
        s.loss_date,
        s.moved_on,
        s.paid AS amount
    FROM said AS s
    UNION ALL
    SELECT
        'incurred' AS measure,
        s.line,
        s.currency,
        s.loss_date,
        s.moved_on,
        s.paid + s.outstanding AS amount
    FROM said AS s
)

SELECT
    m.measure,
    m.currency,
    m.loss_date,
    m.moved_on,
    m.amount
FROM measured AS m
WHERE
    m.moved_on <= CAST($valuation AS DATE)
    AND (CAST($line AS VARCHAR) IS NULL OR m.line = CAST($line AS VARCHAR))
