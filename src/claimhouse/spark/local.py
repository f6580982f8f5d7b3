"""A Spark session for notebooks and small jobs: local, with Delta, and with the storage that claimhouse itself reads.

Where the lake's S3 is, and with which keys, comes from the same options or AWS_* variables as for `claimhouse.open`.
Keys go into the session's memory, never on its command line, which every process of the machine could read.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from claimhouse.errors import SettingsError
from claimhouse.lake.storage import s3_settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_LOGGING = """
rootLogger.level = error
rootLogger.appenderRef.err.ref = err
appender.err.type = Console
appender.err.name = err
appender.err.target = SYSTEM_ERR
appender.err.layout.type = PatternLayout
appender.err.layout.pattern = %p %c{1}: %m%n
"""


def session(
    *, storage_options: Mapping[str, str] | None = None, memory: str = "512m", name: str = "claimhouse"
) -> SparkSession:
    """The process's Spark session, made at the first call; its jars are fetched into the cache at the very first.

    `memory` is the heap's bound, in which the driver does all the work. Raises SettingsError where pyspark or a JDK 17
    is missing.
    """
    from claimhouse.distributed import artifacts, configs
    from claimhouse.distributed.topology import Topology

    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise SettingsError("pyspark is not installed", hint="pip install 'claimhouse[stack]'") from error
    if (active := SparkSession.getActiveSession()) is not None:
        return active
    if not any((artifacts.engine_folder("spark") / "jars").glob("*.jar")):
        artifacts.fetch(["spark"])
    if "JAVA_HOME" not in os.environ:
        os.environ["JAVA_HOME"] = str(artifacts.java(17).parent.parent)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # no look at the machine's name, and no warning about it
    found = s3_settings(storage_options or {})
    place = Topology(s3_endpoint=found["endpoint"], region=found["region"] or "us-east-1")
    scratch = _scratch()
    settings = configs.spark(place, artifacts.spark_jars(), scratch, memory=memory)
    builder: Any = SparkSession.builder
    for key, value in settings.items():
        builder = builder.config(key, value)
    builder = builder.config("spark.ui.showConsoleProgress", "false")
    (scratch / "log4j2.properties").write_text(_LOGGING)
    # The serial collector needs the least memory beside the heap.
    java = f"-XX:+UseSerialGC -Dlog4j2.configurationFile={scratch / 'log4j2.properties'}"
    made: SparkSession = builder.config("spark.driver.extraJavaOptions", java).appName(name).getOrCreate()
    give_keys(made, found["access_key_id"], found["secret_access_key"], found["session_token"])
    return made


def give_keys(session: SparkSession, key: str | None, secret: str | None, token: str | None = None) -> None:
    """S3 keys for a session; what is None is left to the engine's own chain."""
    context: Any = session.sparkContext
    hadoop = context._jsc.hadoopConfiguration()  # there is no other door that leaves no trace
    for name, value in (("access.key", key), ("secret.key", secret), ("session.token", token)):
        if value:
            hadoop.set(f"fs.s3a.{name}", value)


def _scratch() -> Path:
    folder = tempfile.mkdtemp(prefix="claimhouse-spark-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
