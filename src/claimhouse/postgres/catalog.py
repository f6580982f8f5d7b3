"""What the source's catalog says about its tables: which there are, what each is, and what became of an older shape.

One query (DESCRIPTION) tells everything about a table as JSON, and one function makes a Table of it. The DDL event
trigger emits the same query's answer into the stream, so a shape read from the catalog and one read from the stream are
the same by construction.

A column is followed by its attnum: a rename keeps its physical name; a change of kind, or a name that was in use,
gets a new one with a number behind it (`amount__2`), for one Delta column holds one kind of value of one attribute.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import psycopg

from claimhouse.errors import SourceError, UsageError
from claimhouse.postgres.server import explained
from claimhouse.postgres.types import kind_of
from claimhouse.table import Column, Identity, Table, encode_name

# `{oid}` stands for the table's oid; `base` is what lies under domains, `element` under an array. Types and values
# print the same everywhere only under search_path = '' and server.SESSION.
# A partitioned table has no rows: its leaves' identities are what old rows are sent by, and their `attmissingval` what
# older rows show. An index of a leaf is named by the root's index that it is part of.
DESCRIPTION = """
SELECT pg_catalog.json_build_object(
  'oid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname, 'partitions', leaf.list::text[],
  'leaves', (SELECT pg_catalog.json_agg(DISTINCT pg_catalog.jsonb_build_array(l.relreplident,
      (SELECT coalesce(pg_catalog.pg_partition_root(i.indexrelid)::oid, i.indexrelid)::bigint
       FROM pg_catalog.pg_index i WHERE i.indrelid = l.oid AND i.indimmediate AND i.indisvalid
       AND CASE l.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)))
    FROM pg_catalog.pg_class l WHERE l.oid = ANY (leaf.list) AND l.relkind = 'r'),
  'indexes', (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(i.indexrelid::bigint, i.indisprimary,
      (i.indkey::int2[])[0:i.indnkeyatts - 1]) ORDER BY i.indexrelid)
    FROM pg_catalog.pg_index i
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL),
  'columns', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
      'attnum', a.attnum, 'name', a.attname, 'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
      'type_oid', a.atttypid::bigint, 'typmod', a.atttypmod, 'base_oid', b.oid::bigint, 'base_typmod', b.typmod,
      'element_oid', b.element::bigint, 'delimiter', t.typdelim,
      'nullable', NOT a.attnotnull, 'generated', a.attgenerated,
      'missing', (SELECT pg_catalog.min((l.attmissingval::text::text[])[1]) FROM pg_catalog.pg_attribute l
        WHERE l.attrelid = ANY (leaf.list) AND l.attname = a.attname AND l.atthasmissing)) ORDER BY a.attnum)
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    CROSS JOIN LATERAL (
      WITH RECURSIVE under(oid, typmod, element, depth) AS (
        SELECT a.atttypid, a.atttypmod, false, 0
        UNION ALL
        SELECT CASE o.typtype WHEN 'd' THEN o.typbasetype ELSE e.oid END,
               CASE WHEN u.typmod = -1 AND o.typtype = 'd' THEN o.typtypmod ELSE u.typmod END,
               u.element OR o.typtype <> 'd', u.depth + 1
        FROM under u CROSS JOIN LATERAL (SELECT t.* FROM pg_catalog.pg_type t WHERE t.oid = u.oid OFFSET 0) o
        LEFT JOIN pg_catalog.pg_type e ON e.oid = o.typelem AND e.typarray = o.oid AND NOT u.element
        WHERE o.typtype = 'd' OR e.oid IS NOT NULL)
      SELECT (pg_catalog.array_agg(u.oid ORDER BY u.depth DESC) FILTER (WHERE NOT u.element))[1] AS oid,
             (pg_catalog.array_agg(u.typmod ORDER BY u.depth DESC))[1] AS typmod,
             coalesce((pg_catalog.array_agg(u.oid ORDER BY u.depth DESC) FILTER (WHERE u.element))[1], 0) AS element
      FROM under u) b
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
  SELECT coalesce((SELECT pg_catalog.array_agg(p.relid::oid) FROM pg_catalog.pg_partition_tree(c.oid) p WHERE p.isleaf),
                  ARRAY[c.oid]) AS list) leaf
WHERE c.oid = {oid} AND c.relkind IN ('r', 'p')
"""


def describe(conn: psycopg.Connection[Any], oid: int, *, source: str = "main", generated: bool = False) -> Table:
    """The table as it is now, `version` 0. `generated`: whether stored generated columns are published.

    Raises SourceError where there is no such table (any more).
    """
    found = describe_all(conn, [oid], source=source, generated=generated)
    if oid not in found:
        raise SourceError(f"there is no table with oid {oid}")
    return found[oid]


def describe_all(
    conn: psycopg.Connection[Any], oids: Iterable[int], *, source: str = "main", generated: bool = False
) -> dict[int, Table]:
    """Those of the tables that exist, by oid, in one query."""
    these = f"ANY ('{{{','.join(str(int(oid)) for oid in oids)}}}'::oid[])"
    with explained("reading the catalog"):
        rows = conn.execute(DESCRIPTION.format(oid=these).encode()).fetchall()
    shapes = [shape(description, source=source, generated=generated) for (description,) in rows]
    return {table.oid: table for table in shapes}


def shape(description: Mapping[str, Any], *, source: str = "main", generated: bool = False) -> Table:
    """The Table of one DESCRIPTION."""
    published = [c for c in description["columns"] or () if not c["generated"] or (generated and c["generated"] == "s")]
    identity, key = _identity(description, {c["attnum"] for c in published})
    places = {attnum: place for place, attnum in enumerate(key, 1)}
    return Table(
        source=source,
        schema=description["schema"],
        name=description["name"],
        oid=description["oid"],
        version=0,
        identity=identity,
        columns=tuple(_column(c, places.get(c["attnum"], 0)) for c in published),
    )


def evolve(old: Table, new: Table, *, earlier: Iterable[Table] = ()) -> Table | None:
    """The version that follows `old` when the table has become `new` (as described), None if nothing changed.

    `earlier` are the table's versions before `old`: no physical name of theirs comes back for another attribute. Where
    the table was dropped and made again (another oid), columns are followed by name.
    """
    by_name = old.oid != new.oid
    kept = {(c.name if by_name else c.attnum): c for c in old.columns}
    taken = {c.physical for t in (*earlier, old) for c in t.columns}
    version = old.version + 1
    columns = []
    for column in new.columns:
        before = kept.get(column.name if by_name else column.attnum)
        if before is not None and before.kind == column.kind:
            column = replace(column, physical=before.physical, missing=before.missing, since=before.since)
        elif before is not None:  # the same attribute: what older rows show is under its former physical name
            column = replace(column, physical=_fresh(column.physical, taken), missing=None, since=version)
        else:
            column = replace(column, physical=_fresh(column.physical, taken), since=version)
        taken.add(column.physical)
        columns.append(column)
    place = "" if replace(new, place="").folder == old.folder else old.folder
    following = replace(new, source=old.source, version=version, columns=tuple(columns), place=place)
    return None if replace(following, version=old.version) == old else following


@dataclass(frozen=True, slots=True)
class TableInfo:
    """One table that the patterns name.

    `rows` (-1: never analysed) and `pages` are the planner's estimates, of all leaves. `ignored` says why it is no
    matter of ours, `problem` why it cannot be captured as it stands, `sql` what mends that.
    """

    oid: int
    schema: str
    name: str
    rows: int
    pages: int
    ignored: str | None = None
    problem: str | None = None
    sql: str | None = None

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"


def find_tables(conn: psycopg.Connection[Any], patterns: Sequence[str] = ()) -> list[TableInfo]:
    """The tables that the patterns name, by schema and name; all outside system schemas if none includes any.

    A pattern is `schema.table`, `table` (of schema public) or either with shell wildcards; `!pattern` takes away.
    Raises UsageError for a pattern without wildcards that names nothing.
    """
    with explained("listing the tables"):
        rows = conn.execute(_TABLES).fetchall()
    wanted = [p for p in patterns if not p.startswith("!")]
    unwanted = [p[1:] for p in patterns if p.startswith("!")]
    for pattern in wanted:
        if not set(pattern) & set("*?[") and not any(matches(pattern, r[1], r[2]) for r in rows):
            raise UsageError(f"there is no table {pattern}", hint="`schema.table`, in the source's exact spelling")
    found = [
        _info(row, named=bool(wanted))
        for row in rows
        if (not wanted or any(matches(p, row[1], row[2]) for p in wanted))
        and not any(matches(p, row[1], row[2]) for p in unwanted)
    ]
    return _without_twins([info for info in found if info is not None])


@dataclass(frozen=True, slots=True)
class Mark:
    """What betrays a change of a table that the stream does not tell; equal marks, nothing happened.

    `leaves` are (oid, filenode) of the table or its partitions, `attributes` moves with any DDL on its columns, `types`
    tells the labels of enum types in use and the attributes of composite ones, `name` is the table's, `published` what
    brings its changes to us (publication.coverage), where that was asked.
    """

    leaves: tuple[tuple[int, int], ...]
    attributes: str
    types: tuple[str, ...]
    name: str = ""
    published: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON keeps it: equal for equal marks."""
        leaves = [list(leaf) for leaf in self.leaves]
        kept = {"leaves": leaves, "attributes": self.attributes, "types": [*self.types], "name": self.name}
        return {**kept, "published": self.published}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Mark:
        leaves = tuple((oid, node) for oid, node in data["leaves"])
        return cls(leaves, data["attributes"], tuple(data["types"]), data.get("name", ""), data.get("published", ""))

    def rewritten_since(self, earlier: Mark, oid: int = 0) -> bool:
        """Whether rows of the table `oid` may have changed without events: columns changed and storage too, or a type
        in use did.

        Storage alone moves at TRUNCATE (an event) and VACUUM FULL (the same rows). Partitions that come or go count,
        and so does a partition's storage: TRUNCATE of a partition is no event of its root. A table that was not
        published all the while changed without events that reach us.
        """
        if earlier.published and self.published != earlier.published:
            return True
        if self.leaves != earlier.leaves and oid and any(leaf != oid for leaf, _ in self.leaves):
            return True
        moved = self.leaves != earlier.leaves and self.attributes != earlier.attributes
        partitions = {oid for oid, _ in self.leaves} != {oid for oid, _ in earlier.leaves}
        return moved or partitions or not set(earlier.types) <= set(self.types)  # a new label changes no row


def marks(conn: psycopg.Connection[Any], oids: Collection[int]) -> dict[int, Mark]:
    """The marks of those of the tables that exist, in one query."""
    with explained("reading the catalog"):
        rows = conn.execute(_MARKS, [list(oids)]).fetchall()
    return {
        oid: Mark(tuple((o, f) for o, f in leaves), attributes or "", tuple(types), name)
        for oid, leaves, attributes, types, name in rows
    }


# Asked every few seconds, of all tables. An OR beside the index's column would read all of the catalog for each of
# them, and so would a join with pg_type that is planned by itself: OFFSET 0 has it looked up.
_TABLES = """
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text,
       c.relispartition, CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::text END,
       size.rows, size.pages,
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), row_security_active(c.oid),
       c.oid::regclass::text, quote_ident(current_user), quote_ident(n.nspname),
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
  SELECT CASE WHEN min(l.reltuples) < 0 THEN -1 ELSE coalesce(sum(l.reltuples), 0) END::bigint AS rows,
         coalesce(sum(l.relpages), 0)::bigint AS pages
  FROM pg_catalog.pg_class l
  WHERE l.relkind <> 'p' AND l.oid = ANY (CASE c.relkind WHEN 'p' THEN ARRAY(
    SELECT relid::oid FROM pg_partition_tree(c.oid)) ELSE ARRAY[c.oid] END)) size
WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
ORDER BY n.nspname, c.relname
"""

_MARKS = """
SELECT c.oid::bigint,
  (SELECT array_agg(ARRAY[l.oid::bigint, coalesce(pg_relation_filenode(l.oid), 0)::bigint] ORDER BY l.oid)
   FROM pg_catalog.pg_class l WHERE l.oid = ANY (leaf.list)),
  (SELECT md5(string_agg(a.attrelid || ' ' || a.attnum || ' ' || a.xmin::text, ',' ORDER BY a.attrelid, a.attnum))
   FROM pg_catalog.pg_attribute a WHERE a.attrelid = ANY (c.oid || leaf.list) AND a.attnum > 0),
  ARRAY(WITH RECURSIVE used(oid) AS (
     SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     UNION
     SELECT next.oid FROM used u
     CROSS JOIN LATERAL (SELECT t.* FROM pg_catalog.pg_type t WHERE t.oid = u.oid OFFSET 0) t CROSS JOIN LATERAL (
       SELECT t.typelem AS oid WHERE t.typelem <> 0 UNION ALL SELECT t.typbasetype WHERE t.typbasetype <> 0
       UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
       WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped) next)
   SELECT 'label ' || l.oid || ' ' || l.enumlabel FROM used u JOIN pg_catalog.pg_enum l ON l.enumtypid = u.oid
   UNION ALL
   SELECT 'type ' || a.attrelid || ' ' || string_agg(a.attname || ' ' || a.atttypid, ',' ORDER BY a.attnum)
   FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.oid AND t.typtype = 'c'
   JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
   GROUP BY a.attrelid ORDER BY 1),
  (SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_catalog.pg_namespace n
   WHERE n.oid = c.relnamespace)
FROM pg_catalog.pg_class c
CROSS JOIN LATERAL (
  SELECT coalesce((SELECT array_agg(p.relid::oid) FROM pg_partition_tree(c.oid) p WHERE p.isleaf),
                  ARRAY[c.oid]) AS list) leaf
WHERE c.oid = ANY (%s)
"""


def _column(told: Mapping[str, Any], place: int) -> Column:
    return Column(
        name=told["name"],
        physical=encode_name(told["name"]),
        attnum=told["attnum"],
        type=told["type"],
        type_oid=told["type_oid"],
        typmod=told["typmod"],
        kind=kind_of(told["base_oid"], told["base_typmod"], told["element_oid"], told["delimiter"]),
        nullable=told["nullable"],
        key=place,
        missing=told["missing"],
    )


def _identity(description: Mapping[str, Any], published: set[int]) -> tuple[Identity, Sequence[int]]:
    """How rows are told apart, and the key's attnums in order.

    FULL with a primary key is kept by that key. Leaves with different identities have a key only if all send it.
    """
    keys = {oid: columns for oid, _, columns in description["indexes"] or ()}
    primary = next((oid for oid, is_primary, _ in description["indexes"] or () if is_primary), None)
    leaves = description["leaves"] or [["d", primary]]
    if any(how != "f" and index not in keys for how, index in leaves):
        return "none", ()
    chosen = {index for how, index in leaves if how != "f"} or {primary}
    if chosen == {None}:
        return "full", ()
    key = keys[chosen.pop()]
    if chosen or not published.issuperset(key):
        return "none", ()
    return "key", key


def _fresh(physical: str, taken: Collection[str]) -> str:
    name, number = physical, 1
    while name in taken:
        number += 1
        name = f"{physical}__{number}"
    return name


def matches(pattern: str, schema: str, name: str) -> bool:
    if pattern == f"{schema}.{name}" or (schema == "public" and fnmatchcase(name, pattern) and "." not in pattern):
        return True
    dots = (place for place, char in enumerate(pattern) if char == ".")
    return any(fnmatchcase(schema, pattern[:d]) and fnmatchcase(name, pattern[d + 1 :]) for d in dots)


def _info(row: tuple[Any, ...], *, named: bool) -> TableInfo | None:
    (
        oid,
        schema,
        name,
        relkind,
        persistence,
        leaf,
        root,
        rows,
        pages,
        readable,
        hidden,
        quoted,
        role,
        in_schema,
        columns,
    ) = row
    info = TableInfo(oid, schema, name, rows, pages)
    if leaf or relkind in "vm":  # nobody expects them unless asked for by name
        why = f"a partition: captured with its root {root}" if leaf else "a view: capture the tables behind it"
        return replace(info, ignored=why) if named else None
    if relkind == "f":
        return replace(info, ignored="a foreign table: its rows live elsewhere")
    if persistence == "u":
        return replace(info, ignored="unlogged: its changes are not in the WAL", sql=f"ALTER TABLE {quoted} SET LOGGED")
    if twins := folded_twins(columns):
        return replace(info, problem=f"columns {' and '.join(twins)} differ only by case")
    if not readable:
        grant = f"GRANT USAGE ON SCHEMA {in_schema} TO {role}; GRANT SELECT ON {quoted} TO {role}"
        return replace(info, problem="no right to SELECT from it", sql=grant)
    if hidden:
        return replace(info, problem="row level security hides rows from our role", sql=f"ALTER ROLE {role} BYPASSRLS")
    return info


def folded_twins(names: Iterable[str]) -> list[str]:
    """The first names that differ only by case, none where there are no such."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[name.lower()].append(name)
    return next((group for group in groups.values() if len(group) > 1), [])


def _without_twins(found: list[TableInfo]) -> list[TableInfo]:
    groups: dict[str, list[str]] = defaultdict(list)
    for info in found:
        if info.ignored is None:
            groups[info.label.lower()].append(info.label)
    return [
        replace(
            info, problem=f"{' and '.join(groups[info.label.lower()])} differ only by case: leave one out by !pattern"
        )
        if info.ignored is None and len(groups[info.label.lower()]) > 1
        else info
        for info in found
    ]
