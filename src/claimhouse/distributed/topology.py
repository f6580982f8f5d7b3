"""Where each engine of the stack is, and how they are told of each other: one object, native and Compose alike.

A `Topology` holds addresses and names, no secrets; `Secrets` holds those, with a masked repr. Natively every host is
127.0.0.1 and ports are free ones; under Compose hosts are service names and ports the usual ones. Both are kept as
JSON files in the stack's folder, the secrets readable by their owner alone.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from claimhouse.errors import SettingsError

SERVICES = ("postgres", "kafka", "controller", "connect", "s3", "glue", "trino")


@dataclass(slots=True)
class Topology:
    """Addresses are `host:port`. `lake` is the lake's location, `catalog` the name of the Trino catalog."""

    source: str = "main"
    database: str = "postgres"
    role: str = "claimhouse"  # whom Debezium connects as: REPLICATION, and SELECT on the tables
    tables: list[str] = field(default_factory=lambda: ["public.*"])
    lake: str = "s3://claimhouse/lake"
    region: str = "us-east-1"
    catalog: str = "claimhouse"
    at: dict[str, str] = field(default_factory=dict)
    s3_endpoint: str | None = "own"  # "own": the stand-in at `at['s3']`; None: AWS
    glue_endpoint: str | None = "own"
    connect_secrets: str = ""  # the file with the source's password, as Connect sees it
    cut_every: float = 1.0
    flush_every: float = 30.0
    fold_every: float = 300.0

    def host(self, service: str) -> str:
        return self.at[service].rpartition(":")[0]

    def port(self, service: str) -> int:
        return int(self.at[service].rpartition(":")[2])

    def url(self, service: str) -> str:
        return f"http://{self.at[service]}"

    @property
    def bucket(self) -> str:
        return self.lake.removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        """The first word of this source's topics, and the connector's name."""
        return f"claimhouse.{self.source}"

    @property
    def s3_url(self) -> str | None:
        return self.url("s3") if self.s3_endpoint == "own" else self.s3_endpoint

    @property
    def glue_url(self) -> str | None:
        return self.url("glue") if self.glue_endpoint == "own" else self.glue_endpoint

    def save(self, path: Path) -> None:
        _write(path, asdict(self), 0o644)

    @classmethod
    def load(cls, path: Path) -> Topology:
        """Raises SettingsError where there is none."""
        return cls(**_read(path, {f.name for f in fields(cls)}))


@dataclass(slots=True)
class Secrets:
    """What only the engines may know. `placeholder` is the value that Debezium writes for unchanged TOAST."""

    postgres: str = ""  # of the role that Debezium connects as
    postgres_admin: str = ""
    s3_key: str = ""
    s3_secret: str = ""
    placeholder: str = ""
    jupyter: str = ""
    metabase: str = ""
    trino: str = ""
    console: str = ""

    def __repr__(self) -> str:
        return "Secrets(***)"

    @classmethod
    def random(cls) -> Secrets:
        made = {f.name: secrets.token_urlsafe(24) for f in fields(cls)}
        return cls(**{**made, "s3_key": secrets.token_hex(10), "placeholder": "__unchanged_" + secrets.token_hex(16)})

    def completed(self) -> Secrets:
        """With a secret of its own for whatever an older version had none for."""
        lacking = {name: made for name, made in asdict(self.random()).items() if not getattr(self, name)}
        return replace(self, **lacking)

    def save(self, path: Path) -> None:
        _write(path, asdict(self), 0o600)

    @classmethod
    def load(cls, path: Path) -> Secrets:
        return cls(**_read(path, {f.name for f in fields(cls)}))


def s3_options(topology: Topology, keys: Secrets) -> dict[str, str]:
    """The lake's storage options, as delta-rs and obstore name them; with AWS none but the region."""
    options = {"aws_region": topology.region}
    if url := topology.s3_url:
        options |= {
            "aws_endpoint": url,
            "aws_access_key_id": keys.s3_key,
            "aws_secret_access_key": keys.s3_secret,
            "aws_virtual_hosted_style_request": "false",
        }
        if url.startswith("http://"):
            options["aws_allow_http"] = "true"
    return options


def environment(topology: Topology, keys: Secrets) -> dict[str, str]:
    """By what our own commands, `claimhouse.open` and Spark find the stack's lake; its keys are among it."""
    found = {name.upper(): value for name, value in s3_options(topology, keys).items()}
    if endpoint := found.pop("AWS_ENDPOINT", None):
        found["AWS_ENDPOINT_URL"] = endpoint
    return {"CLAIMHOUSE_LAKE_LOCATION": topology.lake, **found}


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses at this moment, all different.

    They stay a stack's while it is down, so they are below those that the system gives to outgoing connections.
    """
    found: list[int] = []
    for port in random.sample(range(15_000, 32_000), 2_000):
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise SettingsError("no free ports between 15000 and 32000 on 127.0.0.1")


def _write(path: Path, data: dict[str, Any], mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        json.dump(data, file, indent=1)
    part.replace(path)


def _read(path: Path, known: set[str]) -> dict[str, Any]:
    try:
        return {k: v for k, v in json.loads(path.read_text()).items() if k in known}
    except FileNotFoundError:
        raise SettingsError(f"no stack at {path.parent}", hint="claimhouse stack init") from None
