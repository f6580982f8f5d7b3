"""The streaming job, one process: `python -m claimhouse.distributed.job FOLDER`.

It claims the source, makes slot and publication, registers the connector, and then runs two things side by side: the
streaming query (Kafka → tail table, with the cut) and the mover (tail → lake, flush, fold), whose every named flush
brings Trino's views up to date. It tells how it is in `run/job.json`, which `stack status` and the health check read.
Whatever fails ends the process with status 1; whoever supervises it starts it again.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from claimhouse.distributed import artifacts, configs
from claimhouse.distributed.catalog import Catalog
from claimhouse.distributed.connector import ConnectError
from claimhouse.distributed.mover import Mover
from claimhouse.distributed.registering import put_connector, source_dsn
from claimhouse.distributed.streaming import Progress, Streaming, cluster_id
from claimhouse.distributed.topology import Secrets, Topology, s3_options
from claimhouse.distributed.trino import Trino, TrinoError
from claimhouse.errors import ClaimhouseError
from claimhouse.fraud import hits
from claimhouse.lake import registry
from claimhouse.lake.flushes import FlushRecord
from claimhouse.lake.lake import create
from claimhouse.lake.registry import Registry
from claimhouse.pipeline.options import CaptureOptions
from claimhouse.spark.local import give_keys


class Job:
    """Everything of one source's streaming job. Raises ClaimhouseError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.topology = Topology.load(folder / "topology.json")
        self.keys = Secrets.load(folder / "secrets.json")
        self.stop = threading.Event()
        self.state: dict[str, Any] = {"pid": os.getpid(), "started": time.time()}
        self.failed: BaseException | None = None
        self._publishing = threading.Lock()
        self._named: tuple[FlushRecord, Registry] | None = None
        self._wake = threading.Event()

    def run(self) -> None:
        topology = self.topology
        self.lake = create(topology.lake, s3_options(topology, self.keys))
        hits.prepare(self.lake)
        self.spark = spark_session(topology, self.keys, self.folder)
        options = CaptureOptions(
            topology.source,
            source_dsn(self.folder),
            topology.lake,
            s3_options(topology, self.keys),
            tables=topology.tables,
            freshness=0.0,
            generated=False,  # Debezium leaves them out
        )
        self.mover = Mover(
            options,
            self.lake,
            self._tell,
            self.stop,
            placeholder=self.keys.placeholder,
            every=topology.flush_every,
            named=self._flushed,
        )
        owner = self.mover.open()
        self._register()
        self.streaming = Streaming(self.lake, topology.source, owner.check, self._appended)
        self.mover.events.floor = self.streaming.floor
        cluster = cluster_id(self.spark, topology.at["kafka"])
        self.streaming.prepare(self.mover.begin, cluster)
        checkpoint = self.folder / "data" / "spark" / f"{topology.source}-{self.lake.lake_id[:8]}-{cluster}"
        query = self.streaming.start(
            self.spark, topology.at["kafka"], topology.prefix, str(checkpoint), topology.cut_every
        )
        self.catalog = Catalog(
            Trino(topology.url("trino"), catalog=topology.catalog),
            self.lake,
            topology.catalog,
            topology.source,
            self.keys.placeholder,
            self.mover._wire,
        )
        threads = [
            threading.Thread(target=self._guarded, args=(w,), daemon=True) for w in (self.mover.run, self._publish)
        ]
        for thread in threads:
            thread.start()
        if (record := self.mover.flushed) is not None:  # Glue may have forgotten what the lake knows
            self._flushed(record, registry.load(self.lake, topology.source, record.registry))
        self._write()
        while not self.stop.wait(0.5):
            if query.exception() is not None or not query.isActive:
                self.failed = self.failed or query.exception() or RuntimeError("the streaming query ended")
                self.stop.set()
            self._write()
        with suppress(Exception):
            query.stop()
        threads[0].join(60)
        if self.failed is not None:
            raise self.failed

    def _register(self) -> None:
        """Give the connector its settings, until Connect takes them."""
        known = self.mover.registry
        for attempt in range(60):
            try:
                put_connector(self.folder, self.topology, self.keys, known.slot, known.publication)
                return
            except ConnectError:
                if attempt == 59:
                    raise
                time.sleep(1)

    # --- what the parts tell

    def _appended(self, progress: Progress) -> None:
        self.state["streaming"] = asdict(progress)

    def _tell(self, kind: str, fields: dict[str, Any]) -> None:
        self.state[kind] = fields

    def _flushed(self, record: FlushRecord, registry: Registry) -> None:
        self.state["flush"] = {"flush": record.flush, "cut": record.cut, "end_lsn": record.end_lsn, "at": record.at}
        self._named = (record, registry)
        self._wake.set()

    def _publish(self) -> None:
        """Bring Trino's views up to the newest flush; then what the flush before it covered may leave the tail.

        Views of an older flush stay right, so that folds and flushes that follow each other closely share one round.
        """
        before: FlushRecord | None = None
        again = 0.0
        while not self.stop.is_set():
            if not self._wake.wait(0.5) or self._named is None:
                continue
            record, registry = self._named
            if before is not None and before.registry == record.registry and time.monotonic() < again:
                self.stop.wait(0.2)
                continue
            self._wake.clear()
            again = time.monotonic() + self.topology.flush_every
            try:
                made = self.catalog.publish(record, registry, self.streaming.floor(record.end_lsn))
                self.state["views"] = {"flush": record.flush, "made": len(made), "at": time.time(), "error": None}
            except TrinoError as error:
                self.state["views"] = {**self.state.get("views", {}), "error": str(error)}
                self._wake.set()
                self.stop.wait(2)
                continue
            if before is not None and before.flush != record.flush:
                self.streaming.drop(before.end_lsn)
            before = record

    def _guarded(self, work: Any) -> None:
        try:
            work()
        except BaseException as error:
            self.failed = self.failed or error
        finally:
            self.stop.set()

    def _write(self) -> None:
        path = self.folder / "run" / "job.json"
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({**self.state, "at": time.time()}))
        part.replace(path)


def spark_session(topology: Topology, keys: Secrets, folder: Path) -> Any:
    """A Spark session with the lake's settings."""
    os.environ.setdefault("JAVA_HOME", str(artifacts.java(17).parent.parent))
    from pyspark.sql import SparkSession

    scratch = folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    builder: Any = SparkSession.builder
    for key, value in configs.spark(topology, artifacts.spark_jars(), scratch).items():
        builder = builder.config(key, value)
    session = builder.appName("claimhouse").getOrCreate()
    if topology.s3_url:
        give_keys(session, keys.s3_key, keys.s3_secret)
    session.sparkContext.setLogLevel("WARN")
    return session


def main() -> int:
    job = Job(Path(sys.argv[1]).absolute())
    (job.folder / "run" / "job.json").unlink(missing_ok=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: job.stop.set())
    try:
        job.run()
    except ClaimhouseError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
