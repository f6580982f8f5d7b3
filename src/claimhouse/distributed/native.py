"""The full stack without Docker: the same engines from the registries, started as processes of this machine.

A `Stack` is a folder: `topology.json` (addresses), `secrets.json`, `etc/` (made anew at each start), `data/` (what must
last), `logs/` and `run/`. Every engine listens on 127.0.0.1 only. `up` starts what does not run, in the order in which
they need each other, and waits until each is healthy; `down` ends what this folder's records name, and nothing else.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from claimhouse.distributed import artifacts, configs, source
from claimhouse.distributed.connector import Connect
from claimhouse.distributed.process import NotHealthy, Process
from claimhouse.distributed.topology import SERVICES, Secrets, Topology, free_ports
from claimhouse.distributed.trino import Trino

Say = Callable[[str], None]
ORDER = ("postgres", "kafka", "s3", "glue", "connect", "trino", "spark")


class Stack:
    """The stack in `folder`. `priority` is added to each engine's niceness.

    Raises SettingsError where it was not made yet, NotHealthy where an engine does not come up.
    """

    def __init__(self, folder: str | Path, *, say: Say = lambda _: None, priority: int = 0) -> None:
        self.folder = Path(folder).absolute()
        self.say = say
        self.priority = priority
        self.topology = Topology.load(self.folder / "topology.json")
        self.secrets = Secrets.load(self.folder / "secrets.json")

    @classmethod
    def create(
        cls, folder: str | Path, topology: Topology | None = None, *, say: Say = lambda _: None, priority: int = 0
    ) -> Stack:
        """Make addresses and secrets for a new stack; one that is there keeps its own."""
        folder = Path(folder).absolute()
        if not (folder / "topology.json").exists():
            made = topology or Topology()
            ports = free_ports(len(SERVICES))
            made.connect_secrets = str(folder / "etc" / "connect" / "secrets.properties")
            made.at = {name: f"127.0.0.1:{port}" for name, port in zip(SERVICES, ports, strict=True)} | made.at
            folder.mkdir(parents=True, exist_ok=True, mode=0o711)
            if not (folder / "secrets.json").exists():
                Secrets.random().save(folder / "secrets.json")
            made.save(folder / "topology.json")
        return cls(folder, say=say, priority=priority)

    def process(self, name: str) -> Process:
        return Process(self.folder, name)

    @property
    def connect(self) -> Connect:
        return Connect(self.topology.url("connect"))

    @property
    def trino(self) -> Trino:
        return Trino(self.topology.url("trino"), catalog=self.topology.catalog)

    @property
    def admin_dsn(self) -> str:
        """The own server's superuser. Raises SettingsError where the source is somebody else's server."""
        return self._embedded().dsn

    def up(self, names: Iterable[str] = ORDER) -> None:
        """Start the named engines and wait for them; those that run are left alone."""
        wanted = [n for n in ORDER if n in set(names)]
        artifacts.fetch(_engines(wanted), self.say)
        first = [n for n in wanted if n in {"postgres", "kafka", "s3", "glue"}]
        with ThreadPoolExecutor(max_workers=4) as pool:
            for done in [pool.submit(self.start, name) for name in first]:
                done.result()
        later = [n for n in wanted if n in {"connect", "trino"}]
        with ThreadPoolExecutor(max_workers=2) as pool:
            for done in [pool.submit(self.start, name) for name in later]:
                done.result()
        if "spark" in wanted:
            self.start("spark")

    def start(self, name: str) -> None:
        """Start one engine and wait until it is healthy."""
        getattr(self, f"_start_{name}")()
        self.say(f"{name} is up at {self.topology.at.get(name, 'no port')}")

    def down(self) -> None:
        """End everything that this folder's records name; data stays."""
        for name in reversed(ORDER):
            if name == "postgres":
                with suppress(Exception):
                    self._embedded().stop()
            else:
                self.process(name).stop(within=20)
        self.say("all stopped; data stays in " + str(self.folder / "data"))

    def provision(self) -> None:
        """Make the role that Debezium connects as. Raises SourceError."""
        source.ensure_role(self.source_dsn, self.topology.role, self.secrets.postgres)

    def load_book(self, scale: float) -> None:
        """Load the demo claims book into the source, unless it is there. Raises SourceError."""
        from claimhouse.claims import load

        loaded = load(self.source_dsn, scale=scale, labels_to=self.folder)
        self.say(f"the claims book: {loaded.total:,} rows in {len(loaded.rows)} tables")

    def register(self) -> int:
        """Connector, Glue tables and views again; how many views."""
        from claimhouse.distributed.registering import register

        return register(self.folder)

    @property
    def source_dsn(self) -> str:
        """Whom the job reads: `source.dsn` in the folder, else the stack's own server."""
        given = self.folder / "source.dsn"
        return given.read_text().strip() if given.exists() else self.admin_dsn

    def _embedded(self):
        from claimhouse.postgres.embedded import Embedded

        return Embedded(self.folder / "data" / "postgres")

    def _start_postgres(self) -> None:
        server = self._embedded().start()
        port = (server.folder / "port").read_text().strip()
        if self.topology.at["postgres"] != f"127.0.0.1:{port}":
            self.topology.at["postgres"] = f"127.0.0.1:{port}"
            self.topology.save(self.folder / "topology.json")
        source.ensure_role(server.dsn, self.topology.role, self.secrets.postgres)

    def _start_kafka(self) -> None:
        data, file = self.folder / "data" / "kafka", self._etc("kafka.properties")
        file.write_text(configs.kafka(self.topology, data))
        self._etc("log4j2.yaml").write_text(configs.log4j())
        command = self._java("-Xmx384m", classpath=artifacts.kafka_classpath())
        if not (data / "meta.properties").exists():
            made = Process(self.folder, "kafka-format")
            made.start(
                [*command, "kafka.tools.StorageTool", "format", "-t", artifacts.cluster_id(), "-c", str(file)], {}
            )
            with suppress(NotHealthy):
                made.wait(lambda: (data / "meta.properties").exists() and made.pid is None, within=60)
        process = self.process("kafka")
        process.start([*command, "kafka.Kafka", str(file)], {}, priority=self.priority)
        process.wait(lambda: _listens(self.topology.at["kafka"]), within=90)

    def _start_connect(self) -> None:
        secret = self._etc("connect/secrets.properties")
        secret.touch(mode=0o600)
        secret.write_text(f"postgres={self.secrets.postgres}\n")
        file = self._etc("connect/connect.properties")
        file.write_text(configs.connect(self.topology, artifacts.engine_folder("debezium"), secret))
        process = self.process("connect")
        command = self._java("-Xmx400m", classpath=artifacts.kafka_classpath())
        process.start(
            [*command, "org.apache.kafka.connect.cli.ConnectDistributed", str(file)], {}, priority=self.priority
        )
        process.wait(lambda: self.connect.names() is not None, within=120)

    def _start_s3(self) -> None:
        data = self.folder / "data" / "s3"
        (data / self.topology.bucket).mkdir(parents=True, exist_ok=True)
        process = self.process("s3")
        program = artifacts.cache_folder() / "stack" / "bin" / "versitygw"
        keys = {"ROOT_ACCESS_KEY": self.secrets.s3_key, "ROOT_SECRET_KEY": self.secrets.s3_secret}
        process.start(
            [str(program), "--port", self.topology.at["s3"], "--region", self.topology.region, "posix", str(data)],
            keys,
            priority=self.priority,
        )
        process.wait(lambda: _listens(self.topology.at["s3"]), within=30)

    def _start_glue(self) -> None:
        process = self.process("glue")
        address = ["-H", self.topology.host("glue"), "-p", str(self.topology.port("glue"))]
        process.start([sys.executable, "-m", "moto.server", *address], {}, priority=self.priority)
        process.wait(lambda: _listens(self.topology.at["glue"]), within=60)

    def _start_trino(self) -> None:
        etc = self.folder / "etc" / "trino"
        plugins = artifacts.engine_folder("trino") / "plugins"
        for name, text in configs.trino(self.topology, self.folder / "data" / "trino", plugins, heap=_heap()).items():
            file = etc / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        home = artifacts.trino_home()
        node = [f"-D{line}" for line in (etc / "node.properties").read_text().split()]
        command = [str(artifacts.java(25)), *(etc / "jvm.config").read_text().split(), *node]
        command += [f"-Dconfig={etc / 'config.properties'}", f"-Dlog.levels-file={etc / 'log.properties'}"]
        command += [f"-Dcatalog.config-dir={etc / 'catalog'}"]
        command += ["-cp", f"{home / 'lib'}/*", "io.trino.server.TrinoServer"]
        (self.folder / "data" / "trino").mkdir(parents=True, exist_ok=True)
        process = self.process("trino")
        keys = {"S3_ACCESS_KEY": self.secrets.s3_key, "S3_SECRET_KEY": self.secrets.s3_secret}
        process.start(command, keys, priority=self.priority)
        process.wait(self.trino.ready, within=240)

    def _start_spark(self) -> None:
        process = self.process("spark")
        if process.pid is None:
            (self.folder / "run" / "job.json").unlink(missing_ok=True)
        java = artifacts.java(17)
        env = {"JAVA_HOME": str(java.parent.parent), "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
        process.start(
            [sys.executable, "-m", "claimhouse.distributed.job", str(self.folder)], env, priority=self.priority
        )
        process.wait(lambda: (self.folder / "run" / "job.json").exists(), within=300)

    def _java(self, *options: str, classpath: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self._etc('log4j2.yaml')}"
        return [str(artifacts.java(25)), *options, "-XX:+UseSerialGC", logging, "-cp", classpath]

    def _etc(self, name: str) -> Path:
        file = self.folder / "etc" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def forget(self) -> None:
        """Remove the stack's folder with all its data; it must not run."""
        shutil.rmtree(self.folder)


def _engines(names: list[str]) -> list[str]:
    needs = {
        "kafka": ["jdk", "kafka"],
        "connect": ["jdk", "kafka", "debezium"],
        "s3": ["versitygw"],
        "trino": ["jdk", "trino"],
    }
    return sorted({e for n in names for e in ({**needs, "spark": ["spark"]}).get(n, [])})


def _heap() -> str:
    """Trino's: an eighth of this machine's memory, 1 to 3 GiB. With less room it collects rather than plans."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{min(max(memory >> 23, 1024), 3072)}M"


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=2):
        return True
