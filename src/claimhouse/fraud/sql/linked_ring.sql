-- title: A ring of claims linked by different things
-- class: graph
-- indicator: one of {claims} claims from {homes} addresses, linked by {kinds} kinds of things ({links} direct links
--   of its own)
-- explanation: Claims of people who seem strangers hang together through a telephone here and an account there.
--   Families share both at one address: only links between addresses count for a claim. A value that many claims
--   share is left out as a hub.
-- source: NICB and Coalition Against Insurance Fraud on organised rings; connected components as in entity resolution
-- weight: 0.8
-- reach: component
-- within: span
-- inputs: subject, claim_input, link_input, component_input, edges
-- parameters:
--   claims count 4 claims in the component at least
--   homes count 3 addresses at least
--   kinds count 2 kinds of links between addresses at least
--   span days 540 between the reports of two linked claims at most
--   hub count 25 a value that more claims share links nothing
-- values:
--   claims  count  claims in the component
--   homes   count  addresses in it
--   kinds   count  kinds of things that link different addresses
--   links   count  claims at other addresses that share something with this one
WITH strange AS (
    SELECT
        m.component,
        e.claim_id,
        e.other_id,
        e.kind
    FROM component_input AS m
    INNER JOIN edges AS e ON e.claim_id = m.claim_id
    WHERE e.apart = 1
),

ring AS (
    SELECT
        s.component,
        COUNT(DISTINCT s.kind) AS kinds
    FROM strange AS s
    GROUP BY s.component
),

member AS (
    SELECT
        m.component,
        COUNT(DISTINCT m.claim_id) AS claims,
        COUNT(DISTINCT l.value) AS homes
    FROM component_input AS m
    INNER JOIN link_input AS l ON l.claim_id = m.claim_id
    WHERE l.kind = 'address'
    GROUP BY m.component
),

own AS (
    SELECT
        s.component,
        s.claim_id,
        COUNT(DISTINCT s.other_id) AS links
    FROM strange AS s
    GROUP BY s.component, s.claim_id
)

SELECT
    o.claim_id,
    LEAST(CAST(1 AS DOUBLE), 0.7 + 0.05 * CAST(m.claims - CAST($claims AS BIGINT) AS DOUBLE)) AS score,
    m.claims,
    m.homes,
    r.kinds,
    o.links
FROM own AS o
INNER JOIN ring AS r ON r.component = o.component
INNER JOIN member AS m ON m.component = o.component
WHERE
    m.claims >= CAST($claims AS BIGINT)
    AND m.homes >= CAST($homes AS BIGINT)
    AND r.kinds >= CAST($kinds AS BIGINT)
ORDER BY o.claim_id
