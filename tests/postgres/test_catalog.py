"""What the catalog says about tables, and how an older shape becomes a newer one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from claimhouse.errors import SourceError, UsageError
from claimhouse.postgres.catalog import describe, describe_all, evolve, find_tables, marks
from claimhouse.postgres.publication import coverage, ensure
from claimhouse.postgres.server import connect
from claimhouse.table import Table


def oid_of(postgres, name: str) -> int:
    return postgres.execute("SELECT %s::regclass::oid::bigint", [name])[0][0]


def described(postgres, name: str, **more) -> Table:
    with connect(postgres.dsn) as conn:
        return describe(conn, oid_of(postgres, name), **more)


def first(postgres, name: str) -> Table:
    return replace(described(postgres, name), version=1)


def kinds(table: Table) -> dict[str, str]:
    return {c.name: c.kind for c in table.columns}


def test_columns_have_the_kinds_of_what_lies_under_domains_and_arrays(postgres):
    postgres.execute("CREATE DOMAIN money2 AS numeric(12,2); CREATE DOMAIN small_money AS money2 CHECK (value < 100)")
    postgres.execute("CREATE DOMAIN ids AS int[]; CREATE TYPE mood AS ENUM ('sad'); CREATE TYPE pair AS (a int, b int)")
    postgres.execute("""
        CREATE TABLE t (id bigint PRIMARY KEY, a small_money, b ids, c mood, d pair, e mood[], f money2[],
                        g numeric, h numeric(10,2)[], i varchar(20), j box[], k int2vector, "Odd name" date)
    """)
    assert kinds(described(postgres, "t")) == {
        "id": "int8",
        "a": "decimal(12,2)",
        "b": "list<int4>",
        "c": "text",
        "d": "text",
        "e": "list<text>",
        "f": "list<decimal(12,2)>",
        "g": "text",
        "h": "list<decimal(10,2)>",
        "i": "text",
        "j": "text",
        "k": "text",
        "Odd name": "date",
    }
    table = described(postgres, "t", source="claims")
    assert (table.source, table.version, table.label) == ("claims", 0, "public.t")
    column = table.column("Odd name")
    assert (column.physical, column.type, table.column("i").type) == (
        "_x4f_dd_x20_name",
        "date",
        "character varying(20)",
    )
    assert not table.column("id").nullable and column.nullable
    assert table.column("a").type == "public.small_money"


def test_dropped_attributes_are_skipped_and_attnums_kept(postgres):
    postgres.execute("CREATE TABLE t (a int, b int, c int); ALTER TABLE t DROP b")
    assert [(c.name, c.attnum) for c in described(postgres, "t").columns] == [("a", 1), ("c", 3)]


@pytest.mark.case("O13")
def test_generated_columns_are_left_out_unless_published(postgres):
    postgres.execute("CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a * 2) STORED)")
    assert list(kinds(described(postgres, "t"))) == ["a"]
    assert list(kinds(described(postgres, "t", generated=True))) == ["a", "b"]


@pytest.mark.case("S4")
def test_a_default_that_older_rows_show_without_a_rewrite_is_told_as_text(postgres):
    postgres.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    postgres.execute("""
        ALTER TABLE t ADD a text DEFAULT 'it''s, "so" \\ {x}', ADD b int[] DEFAULT '{1,2}',
                      ADD c numeric(8,2) DEFAULT 1.5, ADD d timestamptz DEFAULT '2026-02-03 04:05:06+02', ADD e text,
                      ADD f bytea DEFAULT '\\x00ff'
    """)
    told = {c.name: c.missing for c in described(postgres, "t").columns}
    assert told == {
        "id": None,
        "a": 'it\'s, "so" \\ {x}',
        "b": "{1,2}",
        "c": "1.50",
        "d": "2026-02-03 02:05:06+00",
        "e": None,
        "f": "\\x00ff",
    }


@pytest.mark.parametrize(
    ("ddl", "identity", "key"),
    [
        ("CREATE TABLE t (a int, b int, c int, PRIMARY KEY (c, a))", "key", ["c", "a"]),
        ("CREATE TABLE t (a int, b int)", "none", []),
        ("CREATE TABLE t (a int PRIMARY KEY DEFERRABLE, b int)", "none", []),
        ("CREATE TABLE t (a int PRIMARY KEY); ALTER TABLE t REPLICA IDENTITY NOTHING", "none", []),
        ("CREATE TABLE t (a int, b int); ALTER TABLE t REPLICA IDENTITY FULL", "full", ["a", "b"]),
        ("CREATE TABLE t (a int, b int PRIMARY KEY); ALTER TABLE t REPLICA IDENTITY FULL", "key", ["b"]),
        (
            "CREATE TABLE t (a int PRIMARY KEY, b int NOT NULL, c int NOT NULL); CREATE UNIQUE INDEX i ON t (c, b)"
            " INCLUDE (a); ALTER TABLE t REPLICA IDENTITY USING INDEX i",
            "key",
            ["c", "b"],
        ),
        (
            "CREATE TABLE t (a int PRIMARY KEY, b int NOT NULL); CREATE UNIQUE INDEX i ON t (b);"
            "ALTER TABLE t REPLICA IDENTITY USING INDEX i; DROP INDEX i",
            "none",
            [],
        ),
        ("CREATE TABLE t (a int, b int UNIQUE NOT NULL)", "none", []),
    ],
)
def test_identity_is_what_the_source_sends_old_rows_by(postgres, ddl, identity, key):
    postgres.execute(ddl)
    table = described(postgres, "t")
    assert (table.identity, [c.name for c in table.key]) == (identity, key)


@pytest.mark.case("S7")
def test_a_partitioned_table_has_the_identity_that_all_its_leaves_send(postgres):
    postgres.execute("""
        CREATE TABLE p (b text, a int PRIMARY KEY) PARTITION BY RANGE (a);
        CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
        CREATE TABLE p2 (a int NOT NULL, b text);
        ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20);
    """)
    table = described(postgres, "p")
    assert (table.identity, [c.name for c in table.key]) == ("key", ["a"])
    postgres.execute("ALTER TABLE p1 REPLICA IDENTITY FULL")
    assert described(postgres, "p").identity == "key"
    postgres.execute("ALTER TABLE p2 REPLICA IDENTITY NOTHING")
    assert described(postgres, "p").identity == "none"
    postgres.execute("ALTER TABLE p2 REPLICA IDENTITY DEFAULT; ALTER TABLE p ADD c text DEFAULT 'old'")
    assert described(postgres, "p").column("c").missing == "old"


def test_a_partitioned_table_without_leaves_goes_by_its_own_key(postgres):
    postgres.execute("CREATE TABLE p (a int PRIMARY KEY) PARTITION BY RANGE (a)")
    postgres.execute("CREATE TABLE q (a int) PARTITION BY RANGE (a)")
    assert described(postgres, "p").identity == "key"
    assert described(postgres, "q").identity == "none"


def test_a_table_without_columns_is_described(postgres):
    postgres.execute("CREATE TABLE t ()")
    assert described(postgres, "t").columns == ()


def test_a_table_that_is_gone_is_named_so(postgres):
    with connect(postgres.dsn) as conn, pytest.raises(SourceError, match="no table with oid 1"):
        describe(conn, 1)


def test_an_unchanged_table_has_no_next_version(postgres):
    postgres.execute("CREATE TABLE t (a int PRIMARY KEY, b text)")
    assert evolve(first(postgres, "t"), described(postgres, "t")) is None


def test_an_added_column_is_known_from_its_version_on_and_its_default_kept(postgres):
    postgres.execute("CREATE TABLE t (a int PRIMARY KEY)")
    one = first(postgres, "t")
    postgres.execute("ALTER TABLE t ADD b text DEFAULT 'x'")
    two = evolve(one, described(postgres, "t"))
    assert two is not None and two.version == 2
    assert (two.column("b").since, two.column("b").missing, two.column("a").since) == (2, "x", 1)
    postgres.execute("VACUUM FULL t")  # the source forgets the default that older rows showed; the log must not
    assert described(postgres, "t").column("b").missing is None
    assert evolve(two, described(postgres, "t")) is None


@pytest.mark.case("S1")
def test_a_renamed_column_keeps_its_physical_name_and_lends_it_to_no_other(postgres):
    postgres.execute("CREATE TABLE t (a int PRIMARY KEY, b text)")
    one = first(postgres, "t")
    postgres.execute("ALTER TABLE t RENAME b TO c; ALTER TABLE t ADD b text")
    two = evolve(one, described(postgres, "t"))
    assert two is not None
    assert {c.name: c.physical for c in two.columns} == {"a": "a", "c": "b", "b": "b__2"}


@pytest.mark.case("S1")
def test_swapped_names_follow_the_attributes(postgres):
    postgres.execute("CREATE TABLE t (a int, b int)")
    one = first(postgres, "t")
    postgres.execute("ALTER TABLE t RENAME a TO x; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME x TO b")
    two = evolve(one, described(postgres, "t"))
    assert two is not None and {c.name: c.physical for c in two.columns} == {"b": "a", "a": "b"}


@pytest.mark.case("S2")
def test_a_changed_kind_gets_a_new_physical_name_and_a_changed_type_of_the_same_kind_does_not(postgres):
    postgres.execute("CREATE TABLE t (a int, b varchar(5))")
    one = first(postgres, "t")
    postgres.execute("ALTER TABLE t ALTER a TYPE bigint, ALTER b TYPE text")
    two = evolve(one, described(postgres, "t"))
    assert two is not None
    assert [(c.physical, c.kind, c.type, c.since) for c in two.columns] == [
        ("a__2", "int8", "bigint", 2),
        ("b", "text", "text", 1),
    ]
    postgres.execute("ALTER TABLE t ALTER a TYPE int")
    three = evolve(two, described(postgres, "t"), earlier=[one])
    assert three is not None and three.column("a").physical == "a__3"


@pytest.mark.case("S1")
def test_a_column_dropped_and_added_again_is_another_one(postgres):
    postgres.execute("CREATE TABLE t (a int, b text)")
    one = first(postgres, "t")
    postgres.execute("ALTER TABLE t DROP b; ALTER TABLE t ADD b text")
    two = evolve(one, described(postgres, "t"))
    assert two is not None and [c.physical for c in two.columns] == ["a", "b__2"]
    postgres.execute("ALTER TABLE t DROP b")
    three = evolve(two, described(postgres, "t"), earlier=[one])
    assert three is not None and [c.name for c in three.columns] == ["a"]
    postgres.execute("ALTER TABLE t ADD b text")
    four = evolve(three, described(postgres, "t"), earlier=[one, two])
    assert four is not None and four.column("b").physical == "b__3"


@pytest.mark.case("S6")
def test_a_new_key_or_replica_identity_makes_a_version(postgres):
    postgres.execute("CREATE TABLE t (a int PRIMARY KEY, b int NOT NULL)")
    one = first(postgres, "t")
    postgres.execute("ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (b)")
    two = evolve(one, described(postgres, "t"))
    assert two is not None and [c.name for c in two.key] == ["b"]
    postgres.execute("ALTER TABLE t REPLICA IDENTITY NOTHING")
    three = evolve(two, described(postgres, "t"))
    assert three is not None and three.identity == "none"


def test_a_table_made_anew_is_followed_by_column_names(postgres):
    postgres.execute("CREATE TABLE t (a int, b text, c int)")
    one = first(postgres, "t")
    postgres.execute("DROP TABLE t; CREATE TABLE t (b text, c text)")
    two = evolve(one, described(postgres, "t"))
    assert two is not None and {c.name: c.physical for c in two.columns} == {"b": "b", "c": "c__2"}


def labels(found) -> list[str]:
    return [i.label for i in found if i.ignored is None]


def found(postgres, *patterns: str):
    with connect(postgres.dsn) as conn:
        return find_tables(conn, patterns)


def test_patterns_choose_by_schema_and_name(postgres):
    postgres.execute("""
        CREATE SCHEMA s; CREATE SCHEMA "s.t";
        CREATE TABLE claim (a int); CREATE TABLE claim_party (a int); CREATE TABLE s.claim (a int);
        CREATE TABLE "s.t"."u" (a int); CREATE TABLE "x.y" (a int)
    """)
    assert labels(found(postgres)) == ["public.claim", "public.claim_party", "public.x.y", "s.claim", "s.t.u"]
    assert labels(found(postgres, "claim")) == ["public.claim"]
    assert labels(found(postgres, "claim*", "s.*")) == ["public.claim", "public.claim_party", "s.claim"]
    assert labels(found(postgres, "*.claim")) == ["public.claim", "s.claim"]
    assert labels(found(postgres, "!s.*", "!claim")) == ["public.claim_party", "public.x.y", "s.t.u"]
    assert labels(found(postgres, "public.x.y")) == ["public.x.y"]
    with pytest.raises(UsageError, match="no table clam"):
        found(postgres, "clam")


@pytest.mark.case("O13")
def test_what_the_wal_does_not_hold_is_ignored_with_a_reason(postgres):
    postgres.execute("""
        CREATE UNLOGGED TABLE u (a int); CREATE TABLE t (a int); CREATE VIEW v AS SELECT 1;
        CREATE TEMP TABLE tt (a int);
        CREATE TABLE p (a int) PARTITION BY RANGE (a); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9)
    """)
    assert labels(found(postgres)) == ["public.p", "public.t"]
    reasons = {i.name: i.ignored for i in found(postgres, "u", "v", "p1")}
    assert reasons["u"] is not None and "unlogged" in reasons["u"]
    assert reasons["v"] is not None and "view" in reasons["v"]
    assert reasons["p1"] is not None and "root" in reasons["p1"] and "p" in reasons["p1"]


@pytest.mark.case("S8")
def test_names_that_differ_only_by_case_are_refused_by_name(postgres):
    postgres.execute(
        'CREATE TABLE claim (a int); CREATE TABLE "Claim" (a int); CREATE TABLE fine ("A" int, b int, a int)'
    )
    problems = {i.name: i.problem for i in found(postgres)}
    assert problems["claim"] == problems["Claim"] and "public.Claim and public.claim" in str(problems["claim"])
    assert problems["fine"] == "columns A and a differ only by case"
    assert {i.name: i.problem for i in found(postgres, "!Claim", "!fine")} == {"claim": None}


@pytest.mark.case("R11")
def test_missing_rights_and_hidden_rows_come_with_the_sql_that_mends_them(postgres):
    postgres.execute(
        "CREATE TABLE open (a int); CREATE TABLE ruled (a int); ALTER TABLE ruled ENABLE ROW LEVEL SECURITY"
    )
    dsn = postgres.role()
    postgres.execute('CREATE TABLE "Shut" (a int)')
    with connect(dsn) as conn:
        infos = {i.name: i for i in find_tables(conn)}
    assert infos["open"].problem is None
    assert infos["Shut"].problem == "no right to SELECT from it"
    assert infos["ruled"].problem is not None and "row level security" in infos["ruled"].problem
    for name in ("Shut", "ruled"):
        postgres.execute(infos[name].sql)
    with connect(dsn) as conn:
        assert [i.problem for i in find_tables(conn)] == [None, None, None]


def test_sizes_are_the_planners_over_all_leaves(postgres):
    postgres.execute("""
        CREATE TABLE p (a int) PARTITION BY RANGE (a); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (500);
        CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (500) TO (1000); INSERT INTO p SELECT generate_series(0, 999);
        ANALYZE p; CREATE TABLE fresh (a int)
    """)
    infos = {i.name: i for i in found(postgres)}
    assert infos["p"].rows == 1000 and infos["p"].pages >= 4
    assert infos["fresh"].rows == -1


@pytest.mark.parametrize(
    ("change", "suspect"),
    [
        ("UPDATE t SET a = a + 1", False),
        ("VACUUM FULL t", False),
        ("TRUNCATE t", False),
        ("ALTER TABLE t ADD z int", False),
        ("ALTER TABLE t ADD z float DEFAULT random()", True),
        ("ALTER TABLE t ALTER a TYPE bigint", True),
        ("ALTER TYPE mood ADD VALUE 'glad'", False),
        ("ALTER TYPE pair ADD ATTRIBUTE y int", True),
        ("ALTER TYPE mood RENAME VALUE 'sad' TO 'low'", True),
        ("ALTER TYPE pair RENAME ATTRIBUTE x TO y", True),
    ],
)
def test_marks_betray_rows_that_change_without_events(postgres, change, suspect):
    postgres.execute("CREATE TYPE mood AS ENUM ('sad'); CREATE TYPE pair AS (x int); CREATE DOMAIN moods AS mood[]")
    postgres.execute("CREATE TABLE t (a int, m moods, p pair); INSERT INTO t VALUES (1, '{sad}', '(1)')")
    oid = oid_of(postgres, "t")
    with connect(postgres.dsn) as conn:
        before = marks(conn, [oid])[oid]
        assert not marks(conn, [oid])[oid].rewritten_since(before)
        postgres.execute(change)
        assert marks(conn, [oid])[oid].rewritten_since(before) is suspect


class Weighed:
    """A connection that counts the rows which the server handles for a statement, by asking EXPLAIN ANALYZE first."""

    def __init__(self, conn):
        self.conn, self.info, self.rows = conn, conn.info, 0

    def execute(self, query, parameters=None):
        text = query.encode() if isinstance(query, str) else query
        ((plan,),) = self.conn.execute(b"EXPLAIN (ANALYZE, TIMING off, FORMAT JSON) " + text, parameters).fetchall()
        self.rows += handled(plan[0]["Plan"])
        return self.conn.execute(query, parameters)


def handled(node) -> float:
    rows = node["Actual Rows"] + sum(node[k] for k in node if k.startswith("Rows Removed by"))
    return rows * node["Actual Loops"] + sum(map(handled, node.get("Plans", ())))


@pytest.mark.parametrize("look", ["tables", "shapes", "marks", "coverage"])
def test_a_look_at_the_catalog_costs_each_table_the_same_however_many_there_are(postgres, look):
    def cost(upto: int) -> float:
        postgres.execute(f"""DO $$ BEGIN FOR i IN 1..{upto} LOOP
            EXECUTE format('CREATE TABLE IF NOT EXISTS t%s (id int PRIMARY KEY, a text)', i); END LOOP; END $$""")
        postgres.execute("ANALYZE")
        with connect(postgres.dsn) as conn:
            oids = [t.oid for t in find_tables(conn)]
            ensure(conn, "claimhouse_many", [*describe_all(conn, oids).values()])
            weighed = Weighed(conn)
            ask = {
                "tables": lambda: find_tables(weighed),
                "shapes": lambda: describe_all(weighed, oids),
                "marks": lambda: marks(weighed, oids),
                "coverage": lambda: coverage(weighed, "claimhouse_many", oids),
            }
            assert len(ask[look]()) == upto
        return weighed.rows

    few, many = cost(100), cost(400)
    assert many < 6 * few


@pytest.mark.case("S7")
def test_marks_betray_partitions_that_come_and_go(postgres):
    postgres.execute("CREATE TABLE p (a int) PARTITION BY RANGE (a); CREATE TABLE q (a int)")
    oid = oid_of(postgres, "p")
    with connect(postgres.dsn) as conn:
        before = marks(conn, [oid])[oid]
        postgres.execute("ALTER TABLE p ATTACH PARTITION q FOR VALUES FROM (0) TO (9)")
        after = marks(conn, [oid, 1])
    assert list(after) == [oid] and after[oid].rewritten_since(before)
