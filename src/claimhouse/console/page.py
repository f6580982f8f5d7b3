"""What a page IS: a template's words and figures, and the same as a document and as rows.

Every address has three faces: HTML for people, `.json` (the page's data) and `.csv` (its main rows, with text that a
spreadsheet would run made harmless). Row values reach HTML only through the templates, which escape everything.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.datastructures import QueryParams
from starlette.responses import HTMLResponse, Response

from claimhouse.query import formats, render

ROWS = 100_000  # of one CSV or JSON document


@dataclass(frozen=True)
class Ask:
    """What a request asks for."""

    path: str
    query: QueryParams
    face: str = "html"  # html, json or csv
    parts: dict[str, str] = field(default_factory=dict)

    @property
    def at(self) -> str | None:
        """The moment, None for now."""
        return self.text("at") or None

    def text(self, name: str, default: str = "") -> str:
        return self.query.get(name, default).strip()

    def number(self, name: str, default: int, least: int = 0, most: int = 1 << 40) -> int:
        """A whole number of the query within bounds; what is none is the default."""
        try:
            return max(least, min(most, int(self.query.get(name, default))))
        except ValueError:
            return default

    def link(self, path: str | None = None, **changes: object) -> str:
        """An address with this request's moment. Without a path: this page with these parameters changed."""
        kept = dict(self.query) if path is None else {k: v for k, v in self.query.items() if k == "at"}
        kept |= {k: str(v) for k, v in changes.items() if v is not None}
        for name in [k for k, v in changes.items() if v is None]:
            kept.pop(name, None)
        return (path or self.path) + ("?" + urlencode(kept) if kept else "")

    def face_link(self, face: str) -> str:
        """This page as `.json` or `.csv`."""
        return self.path + "." + face + ("?" + urlencode(dict(self.query)) if self.query else "")


@dataclass
class Page:
    """`data` fills the template and is the JSON document; `rows` is the CSV, and stands in JSON as `rows`."""

    template: str
    title: str
    data: dict[str, Any] = field(default_factory=dict)
    rows: pa.Table | None = None
    status: int = 200
    hidden: tuple[str, ...] = ()  # keys of data that the document leaves out


def as_csv(page: Page, path: str = "", positions: Mapping[str, str] | None = None) -> Response:
    """The rows, formulas made harmless (OWASP). Name and header of the file say what it is as of."""
    out = io.BytesIO()
    rows = page.rows if page.rows is not None else pa.table({"note": pa.array(["this page has no rows"])})
    formats.write(rows.slice(0, ROWS).to_reader(), "csv", out, escape_formulas=True)
    as_of = [f"{source}={position}" for source, position in (positions or {}).items()]
    name = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join([path, *as_of]) or "claimhouse").strip("-")
    headers = {"Content-Disposition": f'inline; filename="{name}.csv"', "X-Claimhouse-As-Of": ",".join(as_of)}
    return Response(out.getvalue(), page.status, headers, "text/csv; charset=utf-8")


def as_json(page: Page) -> Response:
    """The data as a JSON object; numbers keep all their digits."""
    document = {k: v for k, v in page.data.items() if k not in page.hidden}
    text = json.dumps({"title": page.title, **document}, default=_plain, ensure_ascii=False, indent=1)
    if page.rows is not None:
        out = io.BytesIO()
        formats.write(page.rows.slice(0, ROWS).to_reader(), "json", out)
        text = text.removesuffix("\n}") + ',\n "rows": ' + out.getvalue().decode().strip() + "\n}"
    return Response(text + "\n", page.status, media_type="application/json")


def as_html(page: Page, **around: Any) -> Response:
    """The page within the console's frame; `around` is what the frame shows."""
    text = ENVIRONMENT.get_template(page.template).render(title=page.title, rows=page.rows, **around, **page.data)
    return HTMLResponse(text, page.status)


def fragment(template: str, **data: Any) -> str:
    """A piece of a page, for live updates."""
    return ENVIRONMENT.get_template(template).render(**data)


def texts(table: pa.Table) -> list[list[str | None]]:
    """Rows of plain texts, as exact as the lake has them; None for NULL."""
    columns = [render.plain(c.combine_chunks() if c.num_chunks != 1 else c.chunk(0)).to_pylist() for c in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z") if value.tzinfo else value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    return str(value)


# --- what templates say numbers and times with


def money(value: object) -> str:
    """`1,234,567.00`; nothing for None."""
    if value is None:
        return "–"
    number = Decimal(str(value))
    return f"{number:,.2f}".replace("-", "−")


def short_money(value: object) -> str:
    """`1.23 M`, for headlines."""
    if value is None:
        return "–"
    number = float(value)  # type: ignore[arg-type]
    sign, number = ("−" if number < 0 else ""), abs(number)
    for unit, size in (("bn", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{sign}{number / size:,.{2 if number < 10 * size else 1}f} {unit}"
    return f"{sign}{number:,.0f}"


def count(value: object) -> str:
    return "–" if value is None else f"{int(value):,}".replace("-", "−")  # type: ignore[call-overload]


def ratio(value: object, digits: int = 1) -> str:
    """A share as percent."""
    return "–" if value is None else f"{float(value) * 100:.{digits}f} %"  # type: ignore[arg-type]


def milliseconds(value: float | None) -> str:
    """`31 ms`, `2.4 s`, `3 min`."""
    if value is None:
        return "–"
    if value < 1000:
        return f"{value:.0f} ms"
    if value < 120_000:
        return f"{value / 1000:.1f} s"
    if value < 7_200_000:
        return f"{value / 60_000:.0f} min"
    return f"{value / 3_600_000:.0f} h" if value < 172_800_000 else f"{value / 86_400_000:.0f} d"


def size(value: float | None) -> str:
    """Bytes as `12.3 MB`."""
    if value is None:
        return "–"
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= step:
            return f"{value / step:,.1f} {unit}"
    return f"{value:.0f} B"


def day(value: object) -> str:
    """`27 Jan 2026`."""
    if value is None:
        return "–"
    return f"{value.day} {value:%b %Y}" if isinstance(value, date) else str(value)


def moment(value: object, precise: bool = False) -> str:
    """`27 Jan 2026 11:01` in UTC; with `precise`, down to the microsecond."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return value
    if not isinstance(value, datetime):
        return day(value)
    value = value.astimezone(UTC) if value.tzinfo else value
    clock = f"{value:%H:%M:%S.%f}" if precise else f"{value:%H:%M}"
    return f"{value.day} {value:%b %Y} {clock}"


def utc(value: object) -> str:
    """For a `datetime` attribute."""
    return str(_plain(value)) if value is not None else ""


def words(value: object) -> str:
    """`closed_no_pay` for a person: `closed no pay`."""
    return str(value or "").replace("_", " ")


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("claimhouse.console", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (money, short_money, count, ratio, milliseconds, size, day, moment, utc, words):
        made.filters[function.__name__] = function
    made.filters["as_json"] = lambda value: json.dumps(value, default=_plain)
    return made


ENVIRONMENT = _environment()
