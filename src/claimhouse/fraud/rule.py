"""A rule IS one SQL file: its header says what it looks for and why, its body scores the claims of `subject`.

    -- title: one line
    -- class: row, lookup, windowed, statistics or graph
    -- indicator: what a reader is told; {column} stands for a value
    -- explanation: why this tells something, and what is innocent in it
    -- source: who says so
    -- weight: 0 to 1, how much a full score counts beside other rules
    -- reach: self, all, component, or kinds of link_input: whose claims a changed claim concerns
    -- within: days between two claims' reports beyond which they do not concern each other: numbers and parameters,
    --   added
    -- inputs: inputs and parts that the body reads
    -- then: a part that finishes the rows (it reads them as `member`)
    -- parameters:
    --   name kind default meaning
    -- values:
    --   name kind meaning

The body gives at most one row per claim of `subject`: claim_id, score (0 to 1, a double) and the values that made it
fire. It is written in the figures' subset of SQL (marts/lint.py) and REPLACE. Files in `sql/parts` hold what rules
share. Which tables concern a rule follows from its inputs: those that the model fills them from.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from claimhouse.errors import SettingsError, UsageError
from claimhouse.marts.inputs import InputColumn

CLASSES = ("row", "lookup", "windowed", "statistics", "graph")
LINKS = ("claimant", "address", "phone", "account", "provider", "asset", "vin")
_PLAIN = ("title", "class", "indicator", "explanation", "source", "weight", "reach", "within", "inputs", "then")
_FIELD = re.compile(r"--\s?([a-z]+):\s*(.*)")


@dataclass(frozen=True)
class Parameter:
    """A number or text that a rule is tuned with; set in the rules' settings file."""

    name: str
    kind: str
    default: Any
    meaning: str


@dataclass(frozen=True)
class Rule:
    """One rule or part, as its file says. `given`: parameters set over their defaults."""

    name: str
    title: str
    kind: str
    indicator: str
    explanation: str
    source: str
    weight: float
    reach: tuple[str, ...]
    within: tuple[str, ...]
    inputs: tuple[str, ...]
    then: str | None
    parameters: tuple[Parameter, ...]
    columns: tuple[InputColumn, ...]
    sql: str
    given: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def values(self) -> dict[str, Any]:
        """Every parameter's value."""
        return {p.name: self.given.get(p.name, p.default) for p in self.parameters}

    @property
    def days(self) -> int | None:
        """Days between two claims' reports beyond which they do not concern each other, None if there are none."""
        if not self.within:
            return None
        return sum(int(word) if word.isdigit() else int(self.values[word]) for word in self.within)

    def text(self, found: Mapping[str, Any]) -> str:
        """The indicator in words, for a hit's values."""
        return self.indicator.format_map(_Shown(found))


class _Shown(dict[str, Any]):
    """Values as a sentence shows them."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        super().__init__(found)

    def __missing__(self, key: str) -> str:
        return "?"

    def __getitem__(self, key: str) -> str:
        value = super().__getitem__(key)
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            return str(value)
        text = f"{number:,.2f}".removesuffix(".00")
        return text if number.is_finite() else str(value)


def parse(name: str, text: str, *, part: bool = False) -> Rule:
    """The rule of a file's text. Raises UsageError naming file and field."""
    fields, blocks, body = _header(name, text)
    needed = (
        ("title", "inputs") if part else ("title", "class", "indicator", "explanation", "source", "weight", "reach")
    )
    for wanted in needed:
        if not fields.get(wanted):
            raise UsageError(f"rule {name}: the header has no {wanted}")
    kind, reach = fields.get("class", ""), _listed(fields.get("reach", "self"))
    if not part and kind not in CLASSES:
        raise UsageError(f"rule {name}: there is no class {kind}", hint=f"one of: {', '.join(CLASSES)}")
    if wrong := sorted(set(reach) - {*LINKS, "self", "all", "component"}):
        raise UsageError(
            f"rule {name}: nothing is reached by {wrong[0]}", hint=f"self, all, component, {', '.join(LINKS)}"
        )
    return Rule(
        name=name,
        kind=kind,
        weight=_share(name, fields.get("weight", "0")),
        reach=reach,
        within=tuple(fields.get("within", "").replace("+", " ").split()),
        inputs=_listed(fields.get("inputs", "")),
        then=fields.get("then") or None,
        parameters=tuple(_parameter(name, line) for line in blocks["parameters"]),
        columns=tuple(_column(name, line) for line in blocks["values"]),
        sql=body,
        title=fields.get("title", ""),
        indicator=fields.get("indicator", ""),
        explanation=fields.get("explanation", ""),
        source=fields.get("source", ""),
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(x.strip() for x in text.split(",") if x.strip())


def _header(name: str, text: str) -> tuple[dict[str, str], dict[str, list[str]], str]:
    fields: dict[str, str] = {}
    blocks: dict[str, list[str]] = {"parameters": [], "values": []}
    lines = text.splitlines()
    place = next((n for n, line in enumerate(lines) if not line.startswith("--")), len(lines))
    key = ""
    for line in lines[:place]:
        if found := _FIELD.match(line):
            key = found[1]
            if key not in _PLAIN and key not in blocks:
                raise UsageError(f"rule {name}: unknown header field {key}", hint=f"known: {', '.join(_PLAIN)}")
            fields[key] = found[2].strip()
        elif key in blocks:
            blocks[key].append(line[2:].strip())
        elif key:
            fields[key] = f"{fields[key]} {line[2:].strip()}".strip()
    return fields, blocks, "\n".join(lines[place:]).strip()


def _parameter(name: str, line: str) -> Parameter:
    words = line.split(None, 3)
    if len(words) != 4 or words[1] not in _CASTS:
        raise UsageError(
            f"rule {name}: {line!r} is not `name kind default meaning`", hint=f"kinds: {', '.join(_CASTS)}"
        )
    return Parameter(words[0], words[1], _CASTS[words[1]](words[2]), words[3])


def _column(name: str, line: str) -> InputColumn:
    words = line.split(None, 2)
    if len(words) != 3:
        raise UsageError(f"rule {name}: {line!r} is not `name kind meaning`")
    return InputColumn(words[0], words[1].rstrip("?"), words[2], words[1].endswith("?"))


def _share(name: str, text: Any) -> float:
    try:
        share = float(text)
    except (TypeError, ValueError):
        share = -1.0
    if isinstance(text, bool) or not 0 <= share <= 1:
        raise SettingsError(f"rule {name}: the weight is a number from 0 to 1")
    return share


def _count(value: Any) -> int:
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError("not whole")
    return int(value)


_CASTS: dict[str, Any] = {
    "count": _count,
    "days": _count,
    "ratio": lambda v: float(v),
    "money": lambda v: Decimal(str(v)),
    "text": str,
    "date": lambda v: v if type(v) is date else date.fromisoformat(str(v)),
}


@cache
def all_files() -> dict[str, tuple[Rule, bool]]:
    """Rules and parts by name, sorted, each with whether it is a part."""
    root = files("claimhouse.fraud") / "sql"
    found = [(item, False) for item in root.iterdir()] + [(item, True) for item in (root / "parts").iterdir()]
    named = {item.name[:-4]: (item, part) for item, part in found if item.name.endswith(".sql")}
    return {n: (parse(n, named[n][0].read_text(), part=named[n][1]), named[n][1]) for n in sorted(named)}


def part(name: str) -> Rule:
    """The part of that name."""
    return all_files()[name][0]


def shipped() -> dict[str, Rule]:
    """Every rule with its defaults: by class in the order of CLASSES, then by name."""
    rules = [rule for rule, is_part in all_files().values() if not is_part]
    return {r.name: r for r in sorted(rules, key=lambda r: (CLASSES.index(r.kind), r.name))}


@dataclass(frozen=True)
class RuleSet:
    """The rules that are on, with their parameters; from which combined score on a claim is in a band."""

    rules: Mapping[str, Rule]
    medium: float = 0.25
    high: float = 0.5

    def band(self, score: float) -> str:
        """low, medium or high."""
        return "high" if score >= self.high else "medium" if score >= self.medium else "low"


def load_rules(path: str | Path | None = None) -> RuleSet:
    """The shipped rules, changed by a TOML file: `[rule] parameter = value`, weight, enabled; `[bands] medium, high`.

    Raises SettingsError naming file, rule and parameter.
    """
    if path is None:
        return RuleSet(shipped())
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"the rules' settings {path} cannot be read: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: {error}") from None
    return changed(data, str(path))


def changed(data: Mapping[str, Any], place: str = "the rules' settings") -> RuleSet:
    """The shipped rules under these settings. Raises SettingsError."""
    rules = shipped()
    bands = data.get("bands", {})
    if not isinstance(bands, dict) or set(bands) - {"medium", "high"}:
        raise SettingsError(f"{place}: [bands] has medium and high")
    for name, given in data.items():
        if name == "bands":
            continue
        if name not in rules or not isinstance(given, dict):
            raise SettingsError(f"{place}: there is no rule {name}", hint=f"one of: {', '.join(rules)}")
        rules[name] = _changed(rules[name], given, place)
    on = {n: r for n, r in rules.items() if data.get(n, {}).get("enabled", True)}
    return RuleSet(on, **{key: _share(key, value) for key, value in bands.items()})


def _changed(rule: Rule, given: Mapping[str, Any], place: str) -> Rule:
    known = {p.name: p for p in rule.parameters}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key in ("weight", "enabled"):
            continue
        if key not in known:
            raise SettingsError(f"{place}: {rule.name} has no parameter {key}", hint=f"there are: {', '.join(known)}")
        try:
            values[key] = _CASTS[known[key].kind](value)
        except (ValueError, TypeError, InvalidOperation):
            raise SettingsError(f"{place}: {rule.name}.{key} is not a {known[key].kind}") from None
    return replace(rule, given=values, weight=_share(rule.name, given.get("weight", rule.weight)))
