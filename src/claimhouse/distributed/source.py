"""The role that Debezium connects as: it may replicate and read the tables, nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from claimhouse.postgres.server import connect, explained


def ensure_role(dsn: str, role: str, password: str, schemas: Sequence[str] = ("public",)) -> None:
    """Make the role, or give it this password; grant SELECT on what is and comes in the schemas. Raises SourceError."""
    name, secret = sql.Identifier(role), sql.Literal(password)
    with connect(dsn) as conn, explained(f"making the role {role}"):
        known = conn.execute("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = %s", (role,)).fetchone()
        verb = sql.SQL("ALTER" if known else "CREATE")
        conn.execute(sql.SQL("{} ROLE {} LOGIN REPLICATION PASSWORD {}").format(verb, name, secret))
        for schema in schemas:
            where = sql.Identifier(schema)
            conn.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(where, name))
            conn.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}").format(where, name))
            conn.execute(
                sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT SELECT ON TABLES TO {}").format(where, name)
            )
