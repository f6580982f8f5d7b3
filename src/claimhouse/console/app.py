"""The console's addresses, and what stands around each page.

`PAGES` is the one list of pages; each is served as HTML, `.json` and `.csv`. A page reads in one session at one moment
and holds no lock of the lake. Live updates are one stream of server-sent events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from claimhouse.console import claims, figures, fraud, overview, page, tables
from claimhouse.console.bar import Bar
from claimhouse.console.book import Book, find_book
from claimhouse.console.claimfile import claim_page
from claimhouse.console.figures import Figures
from claimhouse.console.guard import Access as Entrance
from claimhouse.console.guard import Guard
from claimhouse.console.hits import HitWatch
from claimhouse.console.live import ANEW, live
from claimhouse.console.overview import waiting
from claimhouse.console.page import Ask, Page
from claimhouse.console.pulse import Pulse
from claimhouse.console.reader import Busy, Reader, Reading
from claimhouse.console.slot import SlotWatch
from claimhouse.console.standing import Standing
from claimhouse.errors import ClaimhouseError, NotExact, SourceGone, StorageGone, UsageError
from claimhouse.fraud.disposition import Dispositions
from claimhouse.lake.access import Access, AccessLog
from claimhouse.lake.lake import Lake
from claimhouse.lake.snapshot import LakeSnapshot
from claimhouse.lake.tail import Cut
from claimhouse.marts.model import Model

FORM = 64 << 10  # bytes of a posted form
NAVIGATION = tuple((f"/{name.lower()}", name) for name in ("Overview", "Claims", "Fraud", "Figures", "Tables"))
_STATIC = Path(__file__).parent / "static"


@dataclass
class Console:
    """What all pages share."""

    lake: Lake
    zone: str = "UTC"
    user: str = "somebody"
    model: Model | None = None
    slot: SlotWatch | None = None
    queue: fraud.Queue | None = field(default_factory=fraud.rules_side)
    audited: bool = True  # single claims and rows are shown only once who saw them is written down
    streams: int = 0

    def __post_init__(self) -> None:
        self.reader = Reader(self.lake, zone=self.zone)
        self.bar = Bar(self.lake)
        self.pulse = Pulse(self.lake, self._watch)
        self.hits = HitWatch(self.lake, self.pulse)
        self.standing = Standing(self.lake)
        self.figures = Figures(self.model, self.standing)
        self.dispositions = Dispositions(self.lake)
        self.accesses = AccessLog(self.lake)
        self._copied: dict[str, bool] = {}

    def start(self) -> None:
        self.pulse.start()
        self.hits.start()
        self.standing.start()
        if self.slot:
            self.slot.start()

    def stop(self) -> None:
        self.pulse.stop()
        self.hits.stop()
        self.standing.stop()
        if self.slot:
            self.slot.stop()
        self.reader.close()

    def book(self, reading: Reading) -> Book | None:
        return find_book(reading.session)

    def note(self, what: str, key: dict[str, str], found: bool, ask: Ask) -> None:
        """Write down who looks at a claim or a row; raises StorageGone, and then it is not shown."""
        if self.audited:
            self.accesses.write(Access(self.user, what, key, found, f"console.{ask.face}", ask.at or "now"))

    def _watch(self, snapshot: LakeSnapshot, cuts: list[Cut]) -> list[tuple[str, dict[str, Any]]]:
        self.bar.see(snapshot)
        news = overview.watch_claims(snapshot, cuts)
        before = self._copied.get(snapshot.source, False)
        self._copied[snapshot.source] = copied = waiting(snapshot) is None
        return [*news, (ANEW, {})] if copied and not before else news


def _overview(console: Console, reading: Reading, ask: Ask) -> Page:
    for snapshot in reading.session.snapshots.values():
        console.bar.see(snapshot)
    lines = console.bar.steps().lines
    try:
        book = console.book(reading)
    except ClaimhouseError:
        if ask.at is not None or not _waits(reading):
            raise
        book = None  # it is still being copied: what is there already is shown
    made = overview.overview_page(reading, book, ask, console.pulse, console.slot, lines)
    made.data["hits"] = fraud.newest_hits(reading.session, console.queue)
    return made


def _claims(console: Console, reading: Reading, ask: Ask) -> Page:
    book = console.book(reading)
    if book is None:
        return Page("nobook.html", "Claims", {"tables": len(reading.session.names.tables)})
    return claims.claims_page(reading, book, ask)


def _claim(console: Console, reading: Reading, ask: Ask) -> Page:
    book = console.book(reading)
    if book is None:
        return Page("nobook.html", "Claims", {"tables": len(reading.session.names.tables)}, None, 404)
    made = claim_page(reading, book, ask)
    console.note("claim", {"claim_number": ask.parts["number"]}, made.status == 200, ask)
    if made.status == 200:
        number = ask.parts["number"]
        made.data["indicators"] = fraud.indicators(reading.session, number, console.queue)
        made.data["dispositions"] = console.dispositions.of(number)
        made.data["verdicts"] = fraud.VERDICTS
    return made


def _fraud(console: Console, reading: Reading, ask: Ask) -> Page:
    number = console.pulse.number
    return fraud.fraud_page(reading, ask, console.dispositions, console.queue, number)


def _row(console: Console, reading: Reading, ask: Ask) -> Page:
    made = tables.row_page(reading, ask)
    where = "/".join(tables.decode_name(ask.parts[p]) for p in ("source", "schema", "table"))
    console.note(where, made.data["key"], made.status == 200, ask)
    return made


# address, what makes the page
PAGES: tuple[tuple[str, Callable[[Console, Reading, Ask], Page]], ...] = (
    ("/overview", _overview),
    ("/claims", _claims),
    ("/claims/{number:path}", _claim),  # a number may hold slashes
    ("/fraud", _fraud),
    ("/figures", lambda c, r, a: figures.figures_page(r, c.figures, a)),
    ("/figures/all", lambda c, r, a: figures.list_page(r, c.figures, a)),
    ("/figures/cell", lambda c, r, a: figures.cell_page(r, c.figures, a)),
    ("/figures/{name}", lambda c, r, a: figures.figure_page(r, c.figures, a)),
    ("/tables", lambda c, r, a: tables.tables_page(r, a, c.pulse)),
    ("/tables/{source}/{schema}/{table}", lambda c, r, a: tables.table_page(r, a)),
    ("/tables/{source}/{schema}/{table}/row", _row),
)


def create_app(console: Console, entrance: Entrance) -> FastAPI:
    """The ASGI application; starting and stopping the console is its server's."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for path, make in PAGES:
        for face in ("json", "csv", "html"):
            _serve(app, console, path, make, face)
    app.add_api_route("/", lambda: RedirectResponse("/overview", 307), methods=["GET"])
    app.add_api_route("/moments", _moments(console), methods=["GET"])
    app.add_api_route("/live", live(console), methods=["GET"])
    app.add_api_route("/fraud/{claim:path}/disposition", _dispose(console), methods=["POST"])
    app.mount("/static", _Static(directory=_STATIC))
    app.add_exception_handler(404, _absent(console))
    app.add_middleware(Guard, access=entrance)  # type: ignore[arg-type]
    return app


class _Static(StaticFiles):
    """The console's own files: they change only with the program."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _serve(app: FastAPI, console: Console, path: str, make: Callable[..., Page], face: str) -> None:
    def answer(request: Request) -> Response:
        real = request.scope["path"].removesuffix("" if face == "html" else f".{face}")
        ask = Ask(real, request.query_params, face, dict(request.path_params))
        if "position" in ask.query:  # the bar's other field: a position, transaction or cut in place of a time
            return RedirectResponse(ask.link(None, at=ask.text("position") or ask.at, position=None), 303)
        return _answer(console, make, ask)

    app.add_api_route(path + ("" if face == "html" else f".{face}"), answer, methods=["GET"])


def _answer(console: Console, make: Callable[..., Page], ask: Ask) -> Response:
    number = console.pulse.number
    try:
        with console.reader.at(ask.at) as reading:
            bar = console.bar.shown(reading.session)
            try:
                made = make(console, reading, ask)
            except ClaimhouseError as error:
                made = _failed(error)
                if ask.at is None and _waits(reading):
                    made.data["waits"], made.data["number"] = True, number
            return _faced(console, ask, made, bar)
    except ClaimhouseError as error:
        return _faced(console, ask, _failed(error), console.bar.lost(ask.at, error))


def _failed(error: ClaimhouseError) -> Page:
    status = 400 if isinstance(error, UsageError) else 404 if isinstance(error, NotExact | tables.Absent) else 500
    if isinstance(error, Busy | SourceGone | StorageGone):
        status = 503
    data = {"error": str(error), "hint": error.hint, "retry": error.retry, "waits": False, "number": 0}
    return Page("error.html", "This cannot be shown", data, None, status, hidden=("waits", "number"))


def _waits(reading: Reading) -> bool:
    """Whether tables are still being copied."""
    return any(waiting(snapshot) for snapshot in reading.session.snapshots.values())


def _faced(console: Console, ask: Ask, made: Page, bar: dict[str, Any]) -> Response:
    if ask.face == "json":
        made.data = {"at": bar["at"], "positions": bar["positions"], **made.data}
        return page.as_json(made)
    if ask.face == "csv":
        return page.as_csv(made, ask.path, bar["positions"])
    return page.as_html(
        made, ask=ask, bar=bar, lake=console.lake.location, user=console.user, zone=console.zone, navigation=NAVIGATION
    )


def _absent(console: Console) -> Callable[..., Any]:
    async def answer(request: Request, _: Exception) -> Response:
        ask = Ask(request.url.path, request.query_params)
        error = tables.Absent("there is no such page")
        made = _failed(error)
        bar = await run_in_threadpool(console.bar.lost, ask.at, error)
        return _faced(console, ask, made, {**bar, "error": None})

    return answer


def _moments(console: Console) -> Callable[..., Response]:
    def moments(index: int = 0) -> Response:
        """One step of the slider, and how far it reaches now."""
        steps = console.bar.steps()
        return JSONResponse({"step": steps.at(index), "first": steps.first, "last": max(0, len(steps) - 1)})

    return moments


def _dispose(console: Console) -> Callable[..., Any]:
    async def dispose(request: Request, claim: str) -> Response:
        """Write a disposition and go back to where it was made."""
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > FORM:
                return Response("this form is too large", 413)
        try:
            asked = dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=20))
        except ValueError:
            return Response("this form has too many fields", 400)
        ask = Ask("/fraud", request.query_params)
        try:
            await run_in_threadpool(
                lambda: console.dispositions.add(
                    claim,
                    asked.get("verdict", ""),
                    console.user,
                    asked.get("note", ""),
                    score=_score(asked.get("score", "")),
                    lsn=asked.get("lsn", ""),
                )
            )
        except ClaimhouseError as error:
            return _faced(console, ask, _failed(error), await run_in_threadpool(console.bar.lost, None, error))
        back = asked.get("back", "")
        safe = back if back.startswith(("/fraud", "/claims/")) else "/fraud"
        return RedirectResponse(safe, 303)

    return dispose


def _score(text: str) -> float | None:
    """The score that a form tells, from 0 to 100; None for anything else."""
    try:
        return score if 0 <= (score := float(text)) <= 100 else None
    except ValueError:
        return None


def address(host: str, port: int, token: str, path: str = "/overview") -> str:
    """The address to open, with the token."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}{path}?{urlencode({'token': token})}"
