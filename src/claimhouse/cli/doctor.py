"""`claimhouse doctor`: what the server lacks or risks, each finding with the SQL that mends it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from claimhouse.cli.options import ConfigOption, JsonOption, LakeOption, NameOption, SourceOption, settings_for
from claimhouse.cli.talk import emit, level_mark, printable, say

if TYPE_CHECKING:
    from claimhouse.postgres.doctor import Finding
    from claimhouse.settings import Source

_FINE = ("ok", "info")
_READABLE = 20  # lines of SQL that a person reads in passing


def doctor(
    source: SourceOption = None,
    tables: Annotated[
        list[str] | None, typer.Option("--tables", metavar="PATTERN", help="Tables to look at. Repeatable.")
    ] = None,
    lake: LakeOption = None,
    sql: Annotated[
        str | None, typer.Option("--sql", metavar="CODE", help="Print only the SQL of one kind of finding, for psql.")
    ] = None,
    name: NameOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a server before and while it is captured; nothing is changed.

    Version, wal_level, free slots and senders, rights, publication, replica identity of each table, WAL bound and slot
    health, clock. Exits 1 if anything needs mending, 2 if the server cannot be asked.

    \b
    Examples:
      claimhouse doctor --source postgresql://app@localhost/claims
      claimhouse doctor --source service=claims --tables 'billing.*'
      claimhouse doctor --source service=claims --sql ddl | psql service=claims
      claimhouse doctor --json
    """
    from claimhouse.settings import choose

    settings = settings_for(config, lake)
    chosen = choose(settings, source, name)
    found = {n: examined(s, tables) for n, s in chosen.items()}
    everything = [finding for findings in found.values() for finding in findings]
    if sql is not None:
        print_sql(sql, everything)
        return
    if as_json:
        emit([{"source": name, **asdict(finding)} for name, findings in found.items() for finding in findings])
    else:
        for name, findings in found.items():
            tell(name, findings)
    if any(finding.code == "connection" and finding.level == "error" for finding in everything):
        raise typer.Exit(2)
    if any(finding.level not in _FINE for finding in everything):
        raise typer.Exit(1)


def examined(source: Source, tables: list[str] | None) -> list[Finding]:
    """What is found on one source. Raises SourceError, SourceGone."""
    from claimhouse.postgres.doctor import examine

    return examine(
        source.dsn.reveal(), tables=tables or source.tables, slot=source.slot, publication=source.publication
    )


def print_sql(code: str, findings: list[Finding]) -> None:
    """The SQL of the findings of one code. Raises UsageError where there is none."""
    from claimhouse.errors import UsageError

    wanted = [finding.sql for finding in findings if finding.code == code and finding.sql]
    if not wanted:
        known = sorted({finding.code for finding in findings if finding.sql})
        raise UsageError(f"no finding called {code} has SQL", hint=f"there are: {', '.join(known) or 'none'}")
    print("\n".join(wanted))


def tell(name: str, findings: list[Finding]) -> None:
    """Findings for a person, the SQL below each; a script too long to read here is named instead."""
    for finding in findings:
        print(level_mark(finding.level), printable(f"{finding.subject}: {finding.message}"))
        lines = (finding.sql or "").splitlines()
        if len(lines) > _READABLE:
            lines = [f"-- {len(lines)} lines of SQL; print them: claimhouse doctor --sql {finding.code}"]
        for line in lines:
            print(printable(f"      {line}"))
    open_ones = [f for f in findings if f.level not in _FINE]
    say(f"{name}: {len(open_ones)} to mend" if open_ones else f"{name}: ready; next: claimhouse run")
