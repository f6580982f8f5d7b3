-- title: Linked to strangers
-- class: graph
-- indicator: shares {kinds} kinds of things with {links} claims at {homes} other addresses, in a component of
--   {claims} claims
-- explanation: People at different addresses with one account, telephone or vehicle between them, however long ago.
--   Moving house and selling a car do that too; a value that many claims share is left out as a hub.
-- source: NICB indicators (shared accounts and telephones); connected components as in entity resolution
-- weight: 0.45
-- reach: component
-- within: span
-- inputs: subject, claim_input, link_input, component_input, edges
-- parameters:
--   links count 1 claims at other addresses at least
--   span days 540 between the reports of two linked claims at most
--   hub count 25 a value that more claims share links nothing
-- values:
--   links   count  claims at other addresses that share something with this one
--   homes   count  how many addresses those are
--   kinds   count  kinds of things that are shared
--   claims  count  claims in the component
WITH strange AS (
    SELECT
        e.claim_id,
        COUNT(DISTINCT e.other_id) AS links,
        COUNT(DISTINCT l.value) AS homes,
        COUNT(DISTINCT e.kind) AS kinds
    FROM subject AS s
    INNER JOIN edges AS e ON e.claim_id = s.claim_id
    INNER JOIN link_input AS l ON l.claim_id = e.other_id
    WHERE e.apart = 1 AND l.kind = 'address'
    GROUP BY e.claim_id
),

member AS (
    SELECT
        m.component,
        COUNT(DISTINCT m.claim_id) AS claims
    FROM component_input AS m
    GROUP BY m.component
)

SELECT
    s.claim_id,
    LEAST(CAST(1 AS DOUBLE), 0.4 + 0.15 * CAST(s.links + s.kinds - 1 AS DOUBLE)) AS score,
    s.links,
    s.homes,
    s.kinds,
    m.claims
FROM strange AS s
INNER JOIN component_input AS c ON c.claim_id = s.claim_id
INNER JOIN member AS m ON m.component = c.component
WHERE s.links >= CAST($links AS BIGINT)
ORDER BY s.claim_id
