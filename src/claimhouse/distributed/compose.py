"""What runs inside the Compose file's own containers: `python -m claimhouse.distributed.compose COMMAND …`.

`init` makes addresses, secrets and every engine's configuration in the volume that all services mount (what is there
stays: a second `up` changes nothing); `job` prepares the source and runs the streaming job; `provision` sets Metabase
up; the rest is small change.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from claimhouse.distributed import artifacts, configs
from claimhouse.distributed.topology import Secrets, Topology, environment, s3_options

PROVISIONED = Path("/tmp/provisioned")  # the health checks' marks
SCORED = Path("/tmp/scored")
LIVES = Path("/tmp/lives")
CONSOLE_PORT = 8090
AT = {
    "postgres": "postgres:5432",
    "kafka": "kafka:9092",
    "controller": "kafka:9093",
    "connect": "connect:8083",
    "s3": "s3:7070",
    "glue": "glue:5000",
    "trino": "trino:8080",
}
DATABASE = "claims"
EVERYWHERE = "0.0.0.0"  # of the container; the Compose file publishes ports on loopback only


def init(folder: str) -> int:
    """Addresses, secrets, configurations; safe to run again."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    topology = _topology()
    topology.save(root / "topology.json")
    if not (root / "secrets.json").exists():
        Secrets.random().save(root / "secrets.json")
    keys = Secrets.load(root / "secrets.json").completed()
    keys.save(root / "secrets.json")
    for name, text in _files(topology, keys, root).items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("etc/kafka.cluster") and file.exists():
            continue
        file.write_text(text)
        file.chmod(0o444)  # each service runs as another user; only containers mount this volume
    return 0


def _topology() -> Topology:
    aws = os.environ.get("CLAIMHOUSE_S3", "own") == "aws"
    return Topology(
        database=DATABASE,
        tables=["public.*"],
        lake=os.environ.get("LAKE", "s3://claimhouse/lake"),
        region=os.environ.get("AWS_REGION", "us-east-1"),
        at=dict(AT),
        s3_endpoint=None if aws else "own",
        glue_endpoint=None if aws else "own",
        connect_secrets="/stack/etc/connect/secrets.properties",
    )


def _files(topology: Topology, keys: Secrets, root: Path) -> dict[str, str]:
    from claimhouse.distributed.metabase import admin_password

    etc = Path("/stack/etc")
    plugins = Path("/tmp/plugin")  # stack/entry/trino.sh links what is used
    trino = configs.trino(topology, Path("/data/trino"), plugins, bind=EVERYWHERE)
    files = {
        "secrets/postgres_admin": keys.postgres_admin,
        "secrets/s3_key": keys.s3_key,
        "secrets/s3_secret": keys.s3_secret,
        "secrets/jupyter": keys.jupyter,
        "secrets/metabase": admin_password(keys),
        "secrets/console": keys.console,
        "etc/region": topology.region,
        "etc/log4j2.yaml": configs.log4j(),
        "etc/kafka.cluster": artifacts.cluster_id(),
        "etc/kafka.properties": configs.kafka(topology, Path("/var/lib/kafka/data"), bind=EVERYWHERE),
        "etc/connect/secrets.properties": f"postgres={keys.postgres}\n",
        "etc/connect/connect.properties": configs.connect(
            topology, Path("/plugins"), etc / "connect" / "secrets.properties", bind=EVERYWHERE
        ),
        "source.dsn": f"postgresql://postgres:{keys.postgres_admin}@{AT['postgres']}/{DATABASE}\n",
    }
    return files | {f"etc/trino/{name}": text for name, text in trino.items()}


def plugins(folder: str) -> int:
    """Put the Debezium plugin, which the image holds, into a volume for Connect."""
    target = Path(folder) / "debezium-connector-postgres"
    if not target.exists():
        made = target.with_name(".new")
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(artifacts.engine_folder("debezium") / target.name, made)
        made.rename(target)
    return 0


def job(stack: str, data: str) -> int:
    """The streaming job; the demo book is loaded first where the database is empty."""
    from psycopg import sql

    from claimhouse.claims import load
    from claimhouse.distributed.job import main
    from claimhouse.distributed.source import ensure_role
    from claimhouse.postgres.server import connect

    folder = Path(data)
    for name in ("topology.json", "secrets.json", "source.dsn"):
        shutil.copyfile(Path(stack) / name, folder / name)
    dsn = (folder / "source.dsn").read_text().strip()
    with connect(dsn.rpartition("/")[0] + "/postgres") as conn:
        if conn.execute("SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    load(dsn, scale=float(os.environ.get("BOOK_SCALE", "0.1")), labels_to=folder)
    keys = Secrets.load(folder / "secrets.json")
    ensure_role(dsn, Topology.load(folder / "topology.json").role, keys.postgres)
    sys.argv = ["job", str(folder)]
    return main()


def healthy(data: str) -> int:
    """0 while the job tells of itself and Trino's views are made."""
    import json

    try:
        told = json.loads((Path(data) / "run" / "job.json").read_text())
    except (OSError, ValueError):
        return 1
    return 0 if time.time() - told["at"] < 30 and told.get("views", {}).get("flush") else 1


def provision(stack: str) -> int:
    """Metabase's dashboards; then it waits for good, because a service that ends would fail `up --wait`."""
    from claimhouse.distributed.metabase import main

    PROVISIONED.unlink(missing_ok=True)
    if not (status := main(stack)):
        PROVISIONED.touch()
        os.execvp("sleep", ["sleep", "infinity"])
    return status


def book(stack: str) -> int:
    """The demo book lives on, at BOOK_RATE transactions a second; at 0 it rests."""
    from claimhouse.claims import Simulator

    LIVES.touch()
    if not (rate := float(os.environ.get("BOOK_RATE", "5"))):
        os.execvp("sleep", ["sleep", "infinity"])
    Simulator((Path(stack) / "source.dsn").read_text().strip(), rate=rate, workers=1).run()
    return 0


def rules(stack: str) -> int:
    """Keeps the hits of the fraud rules, flush by flush."""
    from claimhouse.fraud import follow
    from claimhouse.lake.lake import open_lake

    SCORED.unlink(missing_ok=True)
    topology, keys = Topology.load(Path(stack) / "topology.json"), Secrets.load(Path(stack) / "secrets.json")
    follow(open_lake(topology.lake, s3_options(topology, keys)), on_step=lambda step: SCORED.touch())
    return 0


def console(stack: str) -> int:
    """The pages over the stack's lake, at the published port of loopback; does not return."""
    os.environ |= lake_environment(Path(stack))
    options = ["--host", EVERYWHERE, "--behind-proxy", "--port", str(CONSOLE_PORT), "--user", "examiner"]
    options += ["--token-file", str(Path(stack) / "secrets" / "console")]
    os.execvp(sys.executable, [sys.executable, "-m", "claimhouse", "console", *options])


def status(data: str) -> int:
    """Every hop of the stack, one a line; 0 where all are well."""
    from claimhouse.distributed.status import hops

    told = hops(Topology.load(Path(data) / "topology.json"), Path(data) / "run" / "job.json")
    for hop in told:
        print(f"{hop.name:<9} {'ok' if hop.ok else 'ill':<4} {hop.says}")
    return 0 if all(hop.ok for hop in told) else 1


def listens(port: str) -> int:
    """0 if something takes connections on that port here."""
    try:
        socket.create_connection(("127.0.0.1", int(port)), timeout=3).close()
    except OSError:
        return 1
    return 0


def jupyter(stack: str, examples: str, folder: str) -> int:
    """JupyterLab over `folder`, with a token of its own and the lake's address for its kernels; does not return."""
    lay_notebooks(Path(examples), Path(folder))
    os.environ |= lake_environment(Path(stack))
    os.environ["JUPYTER_TOKEN"] = Secrets.load(Path(stack) / "secrets.json").jupyter
    options = ["--ip=0.0.0.0", "--port=8888", "--no-browser", "--allow-root", f"--ServerApp.root_dir={folder}"]
    os.execvp("jupyter", ["jupyter", "lab", *options])


def lay_notebooks(examples: Path, folder: Path) -> list[str]:
    """Copy the notebooks that are not there; what a user has changed, or has under that name, stays. Their names."""
    made: list[str] = []
    for example in sorted(examples.glob("*.ipynb")):
        target = folder / example.name
        if not target.exists():
            part = target.with_name(f".{target.name}.part")
            shutil.copyfile(example, part)
            part.rename(target)
            made.append(target.name)
    return made


def lake_environment(stack: Path) -> dict[str, str]:
    """Where a folder's stack has its lake, and the keys."""
    return environment(Topology.load(stack / "topology.json"), Secrets.load(stack / "secrets.json"))


COMMANDS: dict[str, Callable[..., int]] = {
    "init": init,
    "plugins": plugins,
    "job": job,
    "healthy": healthy,
    "book": book,
    "rules": rules,
    "console": console,
    "provision": provision,
    "status": status,
    "listens": listens,
    "jupyter": jupyter,
}

if __name__ == "__main__":
    sys.exit(COMMANDS[sys.argv[1]](*sys.argv[2:]))
