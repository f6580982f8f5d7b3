"""From a triangle to what is still to be paid: development factors here, chain ladder and Mack by chainladder.

`factors` needs nothing beyond Arrow. `reserve` needs the extra `reserving` (chainladder, with pandas behind it), which
is loaded only when asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pyarrow as pa

from claimhouse.errors import UsageError

_FACTORS = pa.schema(
    [
        pa.field("measure", pa.string()),
        pa.field("currency", pa.string()),
        pa.field("age", pa.int64()),
        pa.field("factor", pa.float64()),
        pa.field("to_ultimate", pa.float64()),
        pa.field("origins", pa.int64()),
    ]
)


def factors(triangle: pa.Table) -> pa.Table:
    """Volume-weighted age-to-age factors of a triangle figure: sum at the next age / sum at this one.

    Over origins that have both cells; incomplete cells (`complete` false) count as they stand. `to_ultimate` multiplies
    the factors from this age on, without a tail. Columns: measure, currency, age, factor, to_ultimate, origins.
    """
    rows: list[dict[str, Any]] = []
    for (measure, currency), cells in _triangles(triangle):
        ages = sorted({age for _, age in cells})
        found = [_factor(cells, age, later) for age, later in pairwise(ages)]
        ultimate = 1.0
        part = []
        for age, (factor, origins) in reversed(list(zip(ages, found, strict=False))):
            ultimate *= factor if factor is not None else 1.0
            part.append({"age": age, "factor": factor, "to_ultimate": ultimate, "origins": origins})
        rows += [{"measure": measure, "currency": currency, **row} for row in reversed(part)]
    return pa.Table.from_pylist(rows, _FACTORS)


def grid(triangle: pa.Table, column: str = "value") -> pa.Table:
    """A triangle figure as people read it: a row per measure, currency and origin, a column per age in months.

    `column`: value, increment (rounded to two places) or link_ratio (to four). Cells beyond the valuation are NULL.
    """
    places = Decimal("0.0001") if column == "link_ratio" else Decimal("0.01")
    ages = [str(age) for age in sorted(set(triangle["age"].to_pylist()))]
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for cell in triangle.to_pylist():
        place = {key: cell[key] for key in ("measure", "currency", "origin")}
        row = rows.setdefault(tuple(place.values()), place | dict.fromkeys(ages))
        row[str(cell["age"])] = None if cell[column] is None else Decimal(str(cell[column])).quantize(places)
    kind = pa.decimal128(38, -int(places.as_tuple().exponent))
    schema = [
        ("measure", pa.string()),
        ("currency", pa.string()),
        ("origin", pa.date32()),
        *((age, kind) for age in ages),
    ]
    return pa.Table.from_pylist(list(rows.values()), pa.schema(schema))


def _triangles(triangle: pa.Table) -> Iterator[tuple[tuple[str, str], dict[tuple[Any, int], float]]]:
    groups: dict[tuple[str, str], dict[tuple[Any, int], float]] = defaultdict(dict)
    for row in triangle.select(["measure", "currency", "origin", "age", "value"]).to_pylist():
        groups[row["measure"], row["currency"]][row["origin"], row["age"]] = float(row["value"])
    yield from sorted(groups.items())


def _factor(cells: dict[tuple[Any, int], float], age: int, later: int) -> tuple[float | None, int]:
    origins = [origin for origin, at in cells if at == age and (origin, later) in cells]
    below = sum(cells[origin, age] for origin in origins)
    return (sum(cells[origin, later] for origin in origins) / below if below else None), len(origins)


def reserve(triangle: pa.Table, *, measure: str | None = None, currency: str | None = None) -> pa.Table:
    """Chain ladder ultimate, IBNR and Mack's standard error per origin, and in total (origin NULL).

    `triangle` is a triangle figure with cumulative cells; where it holds several measures or currencies, name one.
    Columns: origin, latest, ultimate, ibnr, mack_std_err (all doubles in units of the currency).
    Raises UsageError where chainladder is not installed or more than one triangle is left.
    """
    cl = _chainladder()
    cumulative = to_chainladder(triangle, measure=measure, currency=currency)
    model = cl.MackChainladder().fit(cumulative)
    summary = model.summary_.to_frame()
    rows = [
        {
            "origin": origin.date(),
            "latest": float(row["Latest"]),
            "ultimate": float(row["Ultimate"]),
            "ibnr": float(row["Ultimate"]) - float(row["Latest"]),
            "mack_std_err": float(row["Mack Std Err"]),
        }
        for origin, row in summary.iterrows()
    ]
    total = {key: sum(row[key] for row in rows) for key in ("latest", "ultimate", "ibnr")}
    rows.append({"origin": None, **total, "mack_std_err": float(model.total_mack_std_err_.values.ravel()[0])})
    columns = [pa.field("origin", pa.date32()), *(pa.field(n, pa.float64()) for n in list(rows[0])[1:])]
    return pa.Table.from_pylist(rows, pa.schema(columns))


def to_chainladder(triangle: pa.Table, *, measure: str | None = None, currency: str | None = None) -> Any:
    """A triangle figure as a chainladder.Triangle, cumulative. Errors as in `reserve`."""
    cl = _chainladder()
    import pandas as pd

    chosen = [
        (key, cells) for key, cells in _triangles(triangle) if measure in (None, key[0]) and currency in (None, key[1])
    ]
    if len(chosen) != 1:
        names = ", ".join(" ".join(key).strip() for key, _ in _triangles(triangle))
        raise UsageError(f"name one triangle by measure and currency, not {len(chosen)}", hint=f"there are: {names}")
    rows = [(o, _end_of(o, age), value) for (o, age), value in chosen[0][1].items()]
    frame = pd.DataFrame(rows, columns=["origin", "valuation", "value"])
    frame["origin"] = pd.to_datetime(frame["origin"])
    frame["valuation"] = pd.to_datetime(frame["valuation"])
    return cl.Triangle(frame, origin="origin", development="valuation", columns="value", cumulative=True)


def _end_of(origin: Any, age: int) -> Any:
    """The first day of the last month of a development period: chainladder counts whole months."""
    month = origin.year * 12 + origin.month - 1 + age - 1
    return origin.replace(year=month // 12, month=month % 12 + 1)


def _chainladder() -> Any:
    try:
        import chainladder
    except ImportError as error:
        raise UsageError("chainladder is not installed", hint="pip install 'claimhouse[reserving]'") from error
    return chainladder
