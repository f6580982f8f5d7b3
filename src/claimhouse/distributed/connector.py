"""The Debezium connector: its configuration, and Connect's REST in the few calls that are needed.

The slot and the publication are made by us beforehand and Debezium starts at the slot's position with `no_data`: rows
that are older come from our own copy (`copying`), so that no transaction of Debezium's stays open for a whole database.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from claimhouse.distributed.topology import Secrets, Topology
from claimhouse.errors import ClaimhouseError

HEARTBEAT = "claimhouse-heartbeat"


class ConnectError(ClaimhouseError):
    """Kafka Connect refused, or could not be reached."""

    retry = True


def config(
    topology: Topology, keys: Secrets, secrets_file: Path, *, role: str, slot: str, publication: str
) -> dict[str, str]:
    """The connector's configuration. The password stays in `secrets_file`: Connect's REST shows its name only."""
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        "exactly.once.support": "required",
        "topic.prefix": topology.prefix,
        "database.hostname": topology.host("postgres"),
        "database.port": str(topology.port("postgres")),
        "database.user": role,
        "database.password": f"${{file:{secrets_file}:postgres}}",
        "database.dbname": topology.database,
        "plugin.name": "pgoutput",
        "slot.name": slot,
        "publication.name": publication,
        "publication.autocreate.mode": "disabled",
        "snapshot.mode": "no_data",
        "provide.transaction.metadata": "true",
        "decimal.handling.mode": "string",
        "time.precision.mode": "isostring",
        "interval.handling.mode": "string",
        "hstore.handling.mode": "json",
        "binary.handling.mode": "hex",
        "include.unknown.datatypes": "true",
        "tombstones.on.delete": "false",
        "skipped.operations": "none",
        "unavailable.value.placeholder": keys.placeholder,
        "heartbeat.interval.ms": "5000",
        "heartbeat.action.query": f"SELECT pg_logical_emit_message(false, '{HEARTBEAT}', '')",
        "poll.interval.ms": "50",
        "topic.creation.enable": "true",
        "topic.creation.default.replication.factor": "1",
        "topic.creation.default.partitions": "1",
        "topic.creation.default.compression.type": "lz4",
    }


class Connect:
    """Connect's REST at `url`. Raises ConnectError."""

    def __init__(self, url: str) -> None:
        self.url = url

    def put(self, name: str, settings: dict[str, str]) -> None:
        """Make the connector, or give it new settings; doing it twice changes nothing."""
        self._ask("PUT", f"/connectors/{name}/config", settings)

    def delete(self, name: str) -> None:
        self._ask("DELETE", f"/connectors/{name}")

    def restart(self, name: str) -> None:
        """Start failed tasks again."""
        self._ask("POST", f"/connectors/{name}/restart?includeTasks=true&onlyFailed=true")

    def names(self) -> list[str]:
        return self._ask("GET", "/connectors")

    def state(self, name: str) -> tuple[str, str]:
        """The connector's state and its task's (`RUNNING`, `FAILED`, …; `NONE` before there is one)."""
        status = self._ask("GET", f"/connectors/{name}/status")
        tasks = status.get("tasks") or [{"state": "NONE"}]
        return status["connector"]["state"], tasks[0]["state"]

    def trouble(self, name: str) -> str | None:
        """The first line of a failed task's trace."""
        tasks = self._ask("GET", f"/connectors/{name}/status").get("tasks") or [{}]
        trace = tasks[0].get("trace")
        return trace.splitlines()[0] if trace else None

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise ConnectError(
                f"connect answers {error.code} to {method} {path}", hint="claimhouse stack logs connect"
            ) from error
        except OSError as error:
            raise ConnectError("connect is not reachable", hint="claimhouse stack status") from error
        return json.loads(text) if text else None
