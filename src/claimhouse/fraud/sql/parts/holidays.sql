-- title: Holidays by month and day (Thanksgiving by its middle day)
-- inputs: none
-- values:
--   month    count  1 to 12
--   day      count  of the month
--   holiday  text   its name
SELECT 1 AS month, 1 AS day, 'New Year''s Day' AS holiday
UNION ALL SELECT 7 AS month, 4 AS day, 'Independence Day' AS holiday
UNION ALL SELECT 11 AS month, 26 AS day, 'about Thanksgiving' AS holiday
UNION ALL SELECT 12 AS month, 25 AS day, 'Christmas Day' AS holiday
