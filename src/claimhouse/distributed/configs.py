"""The configuration of each engine as text, made from one Topology: the native launcher and Compose use the same.

Paths are the caller's: natively below the stack's folder, under Compose where the volumes are mounted. Secrets stand in
files that only their engine reads; the only configuration that holds one is Trino's catalog, which knows `${ENV:…}`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from claimhouse.distributed.topology import Topology

Files = dict[str, str]


def _properties(items: dict[str, Any]) -> str:
    return "".join(
        f"{key}={str(value).lower() if isinstance(value, bool) else value}\n" for key, value in items.items()
    )


def kafka(topology: Topology, data: Path, *, bind: str = "127.0.0.1") -> str:
    """server.properties of one broker that is its own controller."""
    return _properties(
        {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{topology.at['controller']}",
            "listeners": f"PLAINTEXT://{bind}:{topology.port('kafka')},CONTROLLER://{bind}:{topology.port('controller')}",
            "advertised.listeners": f"PLAINTEXT://{topology.at['kafka']}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": data,
            "num.partitions": 1,
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "auto.create.topics.enable": False,
            "log.retention.hours": 168,
            "log.segment.bytes": 268435456,
            "log.cleaner.dedupe.buffer.size": 16777216,
        }
    )


def connect(topology: Topology, plugins: Path, secrets_file: Path, *, bind: str = "127.0.0.1") -> str:
    """connect-distributed.properties: one worker, exactly-once sources, secrets by file."""
    return _properties(
        {
            "bootstrap.servers": topology.at["kafka"],
            "group.id": "claimhouse-connect",
            "listeners": f"http://{bind}:{topology.port('connect')}",
            "rest.advertised.host.name": topology.host("connect"),
            "plugin.path": plugins,
            "plugin.discovery": "service_load",
            "exactly.once.source.support": "enabled",
            "key.converter": "org.apache.kafka.connect.json.JsonConverter",
            "key.converter.schemas.enable": False,
            "value.converter": "org.apache.kafka.connect.json.JsonConverter",
            "value.converter.schemas.enable": False,
            "config.storage.topic": "claimhouse-connect-configs",
            "config.storage.replication.factor": 1,
            "offset.storage.topic": "claimhouse-connect-offsets",
            "offset.storage.replication.factor": 1,
            "offset.storage.partitions": 1,
            "status.storage.topic": "claimhouse-connect-status",
            "status.storage.replication.factor": 1,
            "status.storage.partitions": 1,
            "scheduled.rebalance.max.delay.ms": 0,
            "config.providers": "file",
            "config.providers.file.class": "org.apache.kafka.common.config.provider.FileConfigProvider",
            "config.providers.file.param.allowed.paths": secrets_file.parent,
        }
    )


def log4j(level: str = "WARN") -> str:
    """A log4j2 configuration that writes to the standard output only."""
    return (
        f"Configuration:\n  Appenders:\n    Console:\n      name: out\n      PatternLayout:\n"
        f'        pattern: "%d %p %c{{1}} %m%n"\n'
        f"  Loggers:\n    Root:\n      level: {level}\n      AppenderRef:\n        - ref: out\n"
    )


def trino(topology: Topology, data: Path, plugins: Path, *, bind: str = "127.0.0.1", heap: str = "1G") -> Files:
    """The `etc` folder: file name → text. S3 keys come by the environment."""
    own_s3 = topology.s3_url is not None
    return {
        "node.properties": _properties(
            {
                "node.environment": "claimhouse",
                "node.id": "claimhouse-1",
                "node.data-dir": data,
                "node.bind-ip": bind,
                "node.internal-address": topology.host("trino"),
            }
        ),
        "jvm.config": "\n".join(
            (
                "-server",
                f"-Xmx{heap}",
                "-XX:+UseG1GC",
                "-XX:+ExitOnOutOfMemoryError",
                "-XX:ReservedCodeCacheSize=256M",
                "-Djdk.attach.allowAttachSelf=true",
                "-Dfile.encoding=UTF-8",
                "--enable-native-access=ALL-UNNAMED",
            )
        )
        + "\n",
        "config.properties": _properties(
            {
                "coordinator": True,
                "node-scheduler.include-coordinator": True,
                "http-server.http.port": topology.port("trino"),
                "discovery.uri": topology.url("trino"),
                "plugin.dir": plugins,
                "query.max-memory-per-node": "256MB",
                "query.max-stage-count": 1000,  # a figure reads a dozen views, some of them more than once
                "memory.heap-headroom-per-node": "128MB",
                "catalog.management": "static",
                "task.concurrency": 2,
                "query.max-history": 50,
                "query.min-expire-age": "1m",  # by itself 15 minutes: plans of large views would fill the heap
            }
        ),
        "log.properties": "io.trino=WARN\norg.apache.parquet=WARN\n",
        f"catalog/{topology.catalog}.properties": _properties(
            {
                "connector.name": "delta_lake",
                "hive.metastore": "glue",
                "hive.metastore.glue.region": topology.region,
                "hive.metastore.glue.default-warehouse-dir": f"{topology.lake}/warehouse",
                **({"hive.metastore.glue.endpoint-url": topology.glue_url} if topology.glue_url else {}),
                **(
                    {"hive.metastore.glue.aws-access-key": "local", "hive.metastore.glue.aws-secret-key": "local"}
                    if topology.glue_url
                    else {}
                ),
                "fs.native-s3.enabled": True,
                "s3.region": topology.region,
                **(
                    {
                        "s3.endpoint": topology.s3_url,
                        "s3.path-style-access": True,
                        "s3.aws-access-key": "${ENV:S3_ACCESS_KEY}",
                        "s3.aws-secret-key": "${ENV:S3_SECRET_KEY}",
                    }
                    if own_s3
                    else {}
                ),
                "delta.register-table-procedure.enabled": True,
                "delta.enable-non-concurrent-writes": False,
            }
        ),
    }


def spark(topology: Topology, jars: str, scratch: Path, *, memory: str = "1200m") -> dict[str, str]:
    """Spark's settings for the streaming job and for notebooks: without S3 keys, for they end on a command line."""
    own = topology.s3_url
    return {
        "spark.master": "local[2]",
        "spark.driver.memory": memory,
        # Every hash table of a join or an aggregate takes a page at least. By itself Spark makes them 32 MB for such a
        # heap: a query that joins thirty small inputs then needs a gigabyte for a few thousand rows.
        "spark.buffer.pageSize": "1m",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.extraClassPath": jars,
        "spark.ui.enabled": "false",
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.shuffle.partitions": "2",
        "spark.default.parallelism": "2",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.scheduler.mode": "FAIR",
        "spark.sql.streaming.metricsEnabled": "false",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.hadoop.fs.s3a.endpoint.region": topology.region,
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        **(
            {
                "spark.hadoop.fs.s3a.endpoint": own,
                "spark.hadoop.fs.s3a.path.style.access": "true",
                "spark.hadoop.fs.s3a.connection.ssl.enabled": str(own.startswith("https")).lower(),
            }
            if own
            else {}
        ),
    }
