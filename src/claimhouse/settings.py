"""Settings: one table of names, defaults and meanings, filled from four places, the nearest one winning.

    command line  >  CLAIMHOUSE_* environment  >  claimhouse.toml  >  default

The classes below ARE the table: `config show --origin`, `init` and docs/reference/settings.md print from their fields.
A setting `lake.location` is `[lake] location` in the file and CLAIMHOUSE_LAKE_LOCATION in the environment; one of a
source, `source.claims.dsn`, is `[source.claims] dsn` and CLAIMHOUSE_SOURCE_CLAIMS_DSN. A name that is in no row of the
table is an error that names the nearest one.

Passwords have no place in the file: PostgreSQL's own PG* variables, a service file or a passfile supply them, and
AWS_* variables those of S3. A connection string keeps its password behind a type whose text is masked everywhere.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from claimhouse.dsn import Dsn, is_dsn
from claimhouse.errors import SettingsError, UsageError

FILE = "claimhouse.toml"
DEFAULT_SOURCE = "main"

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h)\Z")
_NAME = re.compile(r"(?!\w*_x)[a-z][a-z0-9_]{0,39}\Z")  # what the lake's spelling of names leaves as it is


def parse_duration(text: object) -> float:
    """Seconds from `25ms`, `2s`, `1.5m`; a bare number is refused: nobody can tell its unit. Raises ValueError."""
    if found := _DURATION.match(str(text).strip()):
        return float(found[1]) * _UNITS[found[2]]
    raise ValueError("a duration looks like 25ms, 2s or 1m")


def format_duration(seconds: float) -> str:
    """`25ms`, `2s`, `1m`: the largest unit that leaves a whole number, as `parse_duration` reads it."""
    for unit in ("h", "m", "s", "ms", "us"):
        count = seconds / _UNITS[unit]
        if count >= 1 and abs(count - round(count)) < 1e-6:
            return f"{round(count)}{unit}"
    return f"{seconds:g}s"


def _listed(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def seconds(option: str, text: str) -> float:
    """`parse_duration` for an option of the command line. Raises UsageError."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def _zone(value: object) -> object:
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(str(value)).key
    except (LookupError, ValueError, OSError):
        raise ValueError("a time zone is called UTC or Europe/Berlin") from None


def _shown_duration(value: float | None) -> str | None:
    return None if value is None else format_duration(value)


Duration = Annotated[float, BeforeValidator(parse_duration), PlainSerializer(_shown_duration)]
Patterns = Annotated[list[str], BeforeValidator(_listed)]
Zone = Annotated[str, BeforeValidator(_zone)]
Format = Literal["table", "json", "csv", "parquet", "arrow", "markdown"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Lake(_Section):
    """Where the lake is, and how its storage is reached."""

    location: str = Field(default="lake", description="a folder, or s3://bucket/prefix; relative to the settings file")
    endpoint: str | None = Field(default=None, description="URL of an S3-compatible server; unset: AWS itself")
    region: str | None = Field(
        default=None, description="the bucket's region; keys come from AWS_ACCESS_KEY_ID and its kin"
    )


class Source(_Section):
    """One operational database; its name in the lake is the section's: `[source.claims]`."""

    dsn: Dsn = Field(
        default=Dsn(""), description="connection string without a password; unset: the PG* variables alone"
    )
    tables: Patterns = Field(default=[], description="patterns such as claim, sales.*, !audit.*; unset: every table")
    publication: str | None = Field(
        default=None, description="publication to use; unset: claimhouse's own, made if allowed"
    )
    slot: str | None = Field(default=None, description="replication slot to use; unset: claimhouse_<source>_<lake>")
    freshness: Duration | None = Field(
        default=None, description="the longest a commit may wait for its cut; unset: 25ms in a folder, 1s on S3"
    )
    flush: Duration | None = Field(
        default=None, description="how often cuts move into the Delta tables; unset: 2s in a folder, 30s on S3"
    )


class Query(_Section):
    """How questions are answered."""

    format: Format = Field(
        default="table", description="what `query` prints: table, json, csv, parquet, arrow or markdown"
    )
    zone: Zone = Field(default="UTC", description="the book's time zone: there a day of --at ends")
    access_log: bool = Field(
        default=True, description="write down in the lake who reads what; false: for a lake that may only be read"
    )


class Fraud(_Section):
    """How claims are scored by rules."""

    model: str = Field(default="demo", description="where the tables hold what rules read: a shipped model, or a file")
    rules: str | None = Field(default=None, description="TOML file with parameters, weights and bands of the rules")


class Settings(_Section):
    """All settings. `origins` tells for each name where its value came from."""

    lake: Lake = Lake()
    query: Query = Query()
    fraud: Fraud = Fraud()
    source: dict[str, Source] = {}
    origins: dict[str, str] = Field(default={}, exclude=True)
    path: Path | None = Field(default=None, exclude=True)

    def timing(self, source: Source) -> tuple[float, float]:
        """(freshness, flush) of a source in seconds, where unset by where the lake lies."""
        remote = "://" in self.lake.location and not self.lake.location.startswith("file://")
        freshness, flush = (1.0, 30.0) if remote else (0.025, 2.0)
        return source.freshness or freshness, source.flush or flush

    def storage_options(self) -> dict[str, str]:
        """What the object store needs beside the location; secrets stay in the environment."""
        options = {}
        if self.lake.endpoint:
            options["endpoint"] = self.lake.endpoint
            if self.lake.endpoint.startswith("http://"):
                options["allow_http"] = "true"
        if self.lake.region:
            options["region"] = self.lake.region
        return options

    def warnings(self) -> list[str]:
        """What stands in the settings file and should not."""
        return [
            f"[source.{name}] dsn holds a password in {self.path}: move it to PGPASSWORD, a service file or a passfile"
            for name, source in self.source.items()
            if source.dsn.has_password and self.origins.get(f"source.{name}.dsn") == str(self.path)
        ]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table of settings; `name` has `<name>` for the source's."""

    name: str
    default: str
    doc: str

    @property
    def variable(self) -> str:
        return "CLAIMHOUSE_" + self.name.replace("<name>", "NAME").replace(".", "_").upper()


_SECTIONS: dict[str, type[_Section]] = {"lake": Lake, "source.<name>": Source, "query": Query, "fraud": Fraud}


def table() -> list[Row]:
    """Every setting there is, in the order of the classes above."""
    return [
        Row(f"{section}.{key}", _as_text(info.get_default()), info.description or "")
        for section, model in _SECTIONS.items()
        for key, info in model.model_fields.items()
    ]


@dataclass
class _Layers:
    """Values by dotted name, each with the place it came from; later layers overwrite earlier ones."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, value: object, origin: str) -> None:
        _check(name, origin)
        self.values[name] = value
        self.origins[name] = origin

    def nested(self) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for name, value in self.values.items():
            *parents, key = name.split(".")
            place = tree
            for parent in parents:
                place = place.setdefault(parent, {})
            place[key] = value
        return tree


def load(
    path: Path | None = None,
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """The settings as they hold now.

    `path` is the settings file; None: CLAIMHOUSE_CONFIG, or claimhouse.toml in this folder if it is there. `flags` are
    dotted names given on the command line. Raises SettingsError for an unknown name, a malformed value or file.
    """
    environment = os.environ if environment is None else environment
    path = _file(path, environment)
    layers = _Layers()
    if path is not None:
        for name, value in _from_file(path):
            layers.put(name, value, str(path))
    for name, value, variable in _from_environment(environment):
        layers.put(name, value, variable)
    for name, value in (flags or {}).items():
        layers.put(name, value, "command line")
    try:
        found = Settings.model_validate({**layers.nested(), "origins": layers.origins, "path": path})
    except ValidationError as error:
        raise _explained(error, layers.origins) from None
    return _rooted(found)


def shown(settings: Settings) -> list[tuple[str, str, str]]:
    """(name, value, origin) of every setting, secrets masked."""
    rows = []
    for section, model in _SECTIONS.items():
        names = [f"source.{n}" for n in settings.source] if section == "source.<name>" else [section]
        for name in names:
            holder = settings.source[name[len("source.") :]] if "." in name else getattr(settings, name)
            for key in model.model_fields:
                full = f"{name}.{key}"
                rows.append((full, _as_text(getattr(holder, key), key), settings.origins.get(full, "default")))
    return rows


def choose(
    settings: Settings, source: str | None, name: str | None = None, environment: Mapping[str, str] | None = None
) -> dict[str, Source]:
    """The sources a command acts on, by their names in the lake.

    `source` is a connection string or a name from the settings; without it all of the settings' sources, or the one
    `name`, or what the PG* variables tell. Raises UsageError.
    """
    environment = os.environ if environment is None else environment
    if name is not None:
        check_name(name)
    if source is not None and is_dsn(source):
        name = name or DEFAULT_SOURCE
        known = settings.source.get(name, Source())
        return {name: known.model_copy(update={"dsn": Dsn(source)})}
    wanted = source or name
    if wanted is not None and wanted in settings.source:
        return {name or wanted: settings.source[wanted]}
    if source is not None:
        near = difflib.get_close_matches(source, settings.source, n=1)
        hint = (
            f"did you mean {near[0]}?" if near else "give a connection string such as postgresql://user@host/database"
        )
        raise UsageError("no source of that name is in the settings", hint=hint)
    if name is None and settings.source:
        return dict(settings.source)
    if any(environment.get(v) for v in ("PGSERVICE", "PGHOST", "PGHOSTADDR", "PGDATABASE", "PGUSER", "PGPORT")):
        return {name or DEFAULT_SOURCE: Source()}
    raise UsageError(
        "no source is named", hint=f"add --source postgresql://user@host/database, or [source.main] dsn to {FILE}"
    )


def only(settings: Settings, source: str | None, name: str | None = None) -> tuple[str, Source]:
    """(name, source) for a command that acts on one. Raises UsageError where several could be meant."""
    chosen = choose(settings, source, name)
    if len(chosen) > 1:
        raise UsageError("several sources are in the settings", hint=f"choose: --source {' or --source '.join(chosen)}")
    return next(iter(chosen.items()))


def changed(source: Source, name: str, given: Mapping[str, object]) -> Source:
    """The source with the command line's values over its own. Raises SettingsError."""
    try:
        valid = Source.model_validate(given)
        return source.model_copy(update={key: getattr(valid, key) for key in given})
    except ValidationError as error:
        prefix = f"source.{name}."
        raise _explained(error, {prefix + key: "the command line" for key in given}, prefix) from None


def check_name(name: str) -> None:
    """A source's name: lower-case letters, digits and underscores. Raises UsageError."""
    if not _NAME.match(name):
        raise UsageError(
            "a source's name is a lower-case letter followed by letters, digits or underscores (but no _x), 40 at most",
            hint="for example --name claims_eu",
        )


def _file(path: Path | None, environment: Mapping[str, str]) -> Path | None:
    if path is None and (variable := environment.get("CLAIMHOUSE_CONFIG")):
        path = Path(variable)
    if path is None:
        here = Path(FILE)
        return here if here.is_file() else None
    if not path.is_file():
        raise SettingsError(f"there is no settings file {path}", hint=f"claimhouse init --config {path}")
    return path


def _from_file(path: Path) -> Iterator[tuple[str, object]]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        place = re.search(r"\(at .*\)", str(error))
        raise SettingsError(f"{path} is not valid TOML {place[0] if place else ''}".rstrip()) from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    for section, content in data.items():
        if not isinstance(content, dict):
            raise _unknown(section, str(path))
        for key, value in content.items():
            if section != "source":
                yield f"{section}.{key}", value
            elif not isinstance(value, dict):
                raise SettingsError(f"{path}: [source] holds sources by name", hint=f"write [source.main] above {key}")
            else:
                yield from ((f"source.{key}.{inner}", v) for inner, v in value.items())


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(name, value, variable). Variables whose first word is no section (CLAIMHOUSE_CONFIG) are not settings."""
    for variable, value in sorted(environment.items()):
        prefix, _, rest = variable.partition("_")
        section, _, key = rest.lower().partition("_")
        if prefix != "CLAIMHOUSE" or section not in ("lake", "query", "fraud", "source") or not key:
            continue
        if section == "source":
            source, _, key = key.rpartition("_")
            yield f"source.{source or DEFAULT_SOURCE}.{key}", value, variable
        else:
            yield f"{section}.{key}", value, variable


def _check(name: str, origin: str) -> None:
    section, _, key = name.rpartition(".")
    if section.startswith("source."):
        source = section.removeprefix("source.")
        if not _NAME.match(source):
            raise SettingsError(
                f"{origin}: [source.…] is named by lower-case letters, digits and underscores",
                hint="for example [source.claims_eu]",
            )
        section = "source.<name>"
    if section not in _SECTIONS or key not in _SECTIONS[section].model_fields:
        raise _unknown(name, origin)


def _unknown(name: str, origin: str) -> SettingsError:
    source = name.split(".")[1] if name.startswith("source.") and name.count(".") == 2 else "main"
    known = [row.name.replace("<name>", source) for row in table()]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"settings there are: {', '.join(known)}"
    return SettingsError(f"unknown setting {name} in {origin}", hint=hint)


def _explained(error: ValidationError, origins: Mapping[str, str], prefix: str = "") -> SettingsError:
    first = error.errors(include_input=False, include_url=False)[0]
    name = prefix + ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    place = origins.get(name, "the settings")
    message = first["msg"].removeprefix("Value error, ")
    return SettingsError(f"{name} in {place}: {message[:1].lower()}{message[1:]}")


def _rooted(settings: Settings) -> Settings:
    """A relative lake location of the file is relative to the file, not to where the command runs."""
    location = settings.lake.location
    from_file = settings.path is not None and settings.origins.get("lake.location", "default") == str(settings.path)
    if not from_file or "://" in location or settings.path is None or Path(location).is_absolute():
        return settings
    lake = settings.lake.model_copy(update={"location": str(settings.path.parent / location)})
    return settings.model_copy(update={"lake": lake})


def _as_text(value: object, key: str = "") -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, float):
        return format_duration(value)
    return str(value)
