"""A model file says where an insurer's own tables hold what rules read: one SELECT per logical input.

It looks like a figures' model (marts/model.py): `[model]`, `[inputs]`, and `[changed]`, which tells per table whose
claims a changed row touches. A rule whose inputs a model leaves out is off.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

from claimhouse.fraud.inputs import INPUTS
from claimhouse.marts.model import Model, ModelError, read_input, read_query


def shipped() -> list[str]:
    """Names of the models that come with claimhouse."""
    return sorted(x.name[:-5] for x in (files("claimhouse.fraud") / "models").iterdir() if x.name.endswith(".toml"))


def load(model: str | Path = "demo") -> Model:
    """A shipped model by name, or a model file by path. Raises ModelError naming file, input and column."""
    text = str(model)
    if text in shipped():
        return parse((files("claimhouse.fraud") / "models" / f"{text}.toml").read_text(), f"{text}.toml")
    path = Path(text)
    if not path.is_file():
        raise ModelError(f"there is no model {text}", hint=f"a .toml file, or one of: {', '.join(shipped())}")
    return parse(path.read_text(encoding="utf-8"), str(path))


def parse(text: str, file: str) -> Model:
    """The model of a file's text; `file` is its name in errors."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{file}: {error}") from error
    if unknown := sorted(set(data) - {"model", "inputs", "changed"}):
        raise ModelError(f"{file}: unknown section [{unknown[0]}]", hint="there are [model], [inputs] and [changed]")
    head = data.get("model", {})
    inputs = {name: read_input(name, sql, file, INPUTS) for name, sql in data.get("inputs", {}).items()}
    changed = {name: read_query(f"changed.{name}", sql, file) for name, sql in data.get("changed", {}).items()}
    for name, query in changed.items():
        if query.named_selects != ["claim_id"]:
            raise ModelError(f"{file}: changed.{name}: it must select claim_id and nothing else")
    model = Model(str(head.get("name", Path(file).stem)), str(head.get("title", "")), file, inputs, changed)
    for table in sorted({t for name in inputs for t in model.tables(name)} - set(changed)):
        raise ModelError(f"{file}: [changed] does not say whose claims a row of {table} touches")
    if "claim_input" not in inputs:
        raise ModelError(f"{file}: the model has no claim_input")
    return model
