"""Triangles as cells {(origin, age): value}, ours and chainladder's."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def cells(table: pa.Table, measure: str = "paid") -> dict[tuple[str, int], float]:
    return {(str(r["origin"]), r["age"]): float(r["value"]) for r in table.to_pylist() if r["measure"] == measure}


def oracle_cells(triangle: Any) -> dict[tuple[str, int], float]:
    frame = triangle.to_frame(origin_as_datetime=True)
    return {
        (str(origin.date()), int(age)): float(value)
        for origin, row in frame.iterrows()
        for age, value in row.items()
        if value == value
    }
