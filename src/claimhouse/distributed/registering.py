"""Connector, Glue and Trino brought back from the lake alone, whenever one of them forgot.

Nothing here writes the lake: the newest cut tells the registry and the flush record,
from which all follows.
"""

from __future__ import annotations

from pathlib import Path

from claimhouse.distributed import connector
from claimhouse.distributed.catalog import Catalog
from claimhouse.distributed.connector import Connect
from claimhouse.distributed.events import ERA
from claimhouse.distributed.mover import wire_type
from claimhouse.distributed.topology import Secrets, Topology, s3_options
from claimhouse.distributed.trino import Trino
from claimhouse.lake import delta, flushes, registry
from claimhouse.lake.lake import Lake, open_lake, tail_events_key
from claimhouse.lake.tail import cut_numbers, read_mark
from claimhouse.postgres.server import connect


def register(folder: Path) -> int:
    """Put the connector, register the tables, make the views; how many views. Raises ClaimhouseError."""
    topology, keys = Topology.load(folder / "topology.json"), Secrets.load(folder / "secrets.json")
    lake = open_lake(topology.lake, s3_options(topology, keys))
    numbers = cut_numbers(lake, topology.source)
    if not numbers:
        return 0
    mark = read_mark(lake, topology.source, numbers[-1])
    known = registry.load(lake, topology.source, mark.registry)
    put_connector(folder, topology, keys, known.slot, known.publication)
    if not mark.flush:
        return 0
    record = flushes.load(lake, topology.source, mark.flush)
    known = registry.load(lake, topology.source, record.registry)
    with connect(source_dsn(folder)) as conn:
        trino = Trino(topology.url("trino"), catalog=topology.catalog)
        catalog = Catalog(
            trino, lake, topology.catalog, topology.source, keys.placeholder, lambda c: wire_type(conn, c.type_oid)
        )
        return len(catalog.publish(record, known, lowest_batch(lake, topology.source)))


def put_connector(folder: Path, topology: Topology, keys: Secrets, slot: str, publication: str) -> None:
    """Give the connector its settings and restart what failed. Raises ConnectError."""
    secrets_file = Path(topology.connect_secrets or folder / "etc" / "connect" / "secrets.properties")
    settings = connector.config(topology, keys, secrets_file, role=topology.role, slot=slot, publication=publication)
    client = Connect(topology.url("connect"))
    client.put(topology.prefix, settings)
    client.restart(topology.prefix)


def source_dsn(folder: Path) -> str:
    """The source as the stack's folder names it: `source.dsn`, else its own server."""
    given = folder / "source.dsn"
    if given.exists():
        return given.read_text().strip()
    from claimhouse.postgres.embedded import Embedded

    return Embedded(folder / "data" / "postgres").dsn


def lowest_batch(lake: Lake, source: str) -> int:
    """The oldest batch that the tail table still holds: always a safe bound for a view."""
    table = delta.open_table(lake, tail_events_key(source))
    if table is None:
        return 0
    eras = [int(p["era"]) for p in table.partitions()]
    return min(eras) * ERA if eras else 0
