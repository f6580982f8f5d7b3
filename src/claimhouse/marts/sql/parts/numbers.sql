-- title: The whole numbers from 0 to 999
-- inputs: none
-- columns:
--   n count the number
WITH digit AS (
    SELECT 0 AS d
    UNION ALL SELECT 1 AS d
    UNION ALL SELECT 2 AS d
    UNION ALL SELECT 3 AS d
    UNION ALL SELECT 4 AS d
    UNION ALL SELECT 5 AS d
    UNION ALL SELECT 6 AS d
    UNION ALL SELECT 7 AS d
    UNION ALL SELECT 8 AS d
    UNION ALL SELECT 9 AS d
)

SELECT ones.d + 10 * tens.d + 100 * hundreds.d AS n
FROM digit AS ones
CROSS JOIN digit AS tens
CROSS JOIN digit AS hundreds
ORDER BY n
