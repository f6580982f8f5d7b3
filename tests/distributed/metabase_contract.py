"""A small server that answers as Metabase does on the calls that provisioning makes, and refuses what Metabase would.

Facts from Metabase's published OpenAPI file and its documentation, for the paths below only: which fields a body must
and may have and of which type, that everything but health, properties, setup and login wants the header
X-Metabase-Session, that names need not be unique, that a setup token works once, that a list of databases lies in
`data`, that a dashboard's new cards come with negative numbers. Stricter than Metabase in one point: a field that the
file does not name is refused.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
TEXT, WHOLE, MAP, LIST, FLAG, MAYBE_TEXT, MAYBE_WHOLE = "text", "whole", "map", "list", "flag", "text?", "whole?"
_TYPES: dict[str, Callable[[Any], bool]] = {
    TEXT: lambda v: isinstance(v, str) and bool(v),
    WHOLE: lambda v: isinstance(v, int) and not isinstance(v, bool),
    MAP: lambda v: isinstance(v, dict),
    LIST: lambda v: isinstance(v, list),
    FLAG: lambda v: isinstance(v, bool),
}


def is_of(kind: str, value: Any) -> bool:
    return (kind.endswith("?") and value is None) or _TYPES[kind.rstrip("?")](value)


# method, path -> (needs a session, required fields, further fields, query's names)
Rule = tuple[bool, dict[str, str], dict[str, str], frozenset[str]]
_CARD = {
    "cache_ttl": MAYBE_WHOLE, "collection_id": MAYBE_WHOLE, "collection_position": MAYBE_WHOLE,
    "dashboard_id": MAYBE_WHOLE, "description": MAYBE_TEXT, "parameter_mappings": LIST, "parameters": LIST,
    "result_metadata": LIST, "type": TEXT,
}  # fmt: skip
_BOARD = {
    "cache_ttl": MAYBE_WHOLE, "collection_id": MAYBE_WHOLE, "collection_position": MAYBE_WHOLE,
    "description": MAYBE_TEXT, "parameters": LIST,
}  # fmt: skip
_NOTHING: dict[str, str] = {}
_ITEMS = ["archived", "models", "limit", "offset", "pinned_state", "sort_column", "sort_direction"]
RULES: dict[tuple[str, str], Rule] = {
    ("GET", "/api/health"): (False, _NOTHING, _NOTHING, frozenset()),
    ("GET", "/api/session/properties"): (False, _NOTHING, _NOTHING, frozenset()),
    ("POST", "/api/setup"): (False, {"token": TEXT, "user": MAP, "prefs": MAP}, _NOTHING, frozenset()),
    ("POST", "/api/session"): (False, {"username": TEXT, "password": TEXT}, _NOTHING, frozenset()),
    ("GET", "/api/database"): (True, _NOTHING, _NOTHING, frozenset(("include", "saved"))),
    ("POST", "/api/database"): (
        True,
        {
            "name": TEXT, "engine": TEXT, "details": MAP, "is_full_sync": FLAG, "is_on_demand": FLAG,
            "connection_source": TEXT,
        },
        {"auto_run_queries": FLAG, "cache_ttl": MAYBE_WHOLE, "schedules": MAP, "provider_name": MAYBE_TEXT},
        frozenset(),
    ),
    ("GET", "/api/database/N"): (True, _NOTHING, _NOTHING, frozenset(("include",))),
    ("PUT", "/api/database/N"): (
        True,
        _NOTHING,
        {
            "name": TEXT, "engine": TEXT, "details": MAP, "auto_run_queries": FLAG, "cache_ttl": MAYBE_WHOLE,
            "caveats": MAYBE_TEXT, "description": MAYBE_TEXT, "points_of_interest": MAYBE_TEXT,
            "provider_name": MAYBE_TEXT, "refingerprint": FLAG, "schedules": MAP, "settings": MAP,
        },
        frozenset(),
    ),
    ("GET", "/api/collection"): (True, _NOTHING, _NOTHING, frozenset(("archived", "namespace", "personal-only"))),
    ("POST", "/api/collection"): (
        True,
        {"name": TEXT},
        {"description": MAYBE_TEXT, "parent_id": MAYBE_WHOLE, "namespace": MAYBE_TEXT, "authority_level": MAYBE_TEXT},
        frozenset(),
    ),
    ("GET", "/api/collection/N/items"): (True, _NOTHING, _NOTHING, frozenset(_ITEMS)),
    ("GET", "/api/card"): (True, _NOTHING, _NOTHING, frozenset(("f", "model_id"))),
    ("POST", "/api/card"): (
        True, {"name": TEXT, "dataset_query": MAP, "display": TEXT, "visualization_settings": MAP}, _CARD, frozenset(),
    ),
    ("PUT", "/api/card/N"): (
        True,
        _NOTHING,
        {
            **_CARD, "name": TEXT, "dataset_query": MAP, "display": TEXT, "visualization_settings": MAP,
            "archived": FLAG, "enable_embedding": FLAG,
        },
        frozenset(("delete_old_dashcards",)),
    ),
    ("POST", "/api/dashboard"): (True, {"name": TEXT}, _BOARD, frozenset()),
    ("GET", "/api/dashboard/N"): (True, _NOTHING, _NOTHING, frozenset()),
    ("PUT", "/api/dashboard/N"): (
        True,
        _NOTHING,
        {**_BOARD, "name": TEXT, "archived": FLAG, "dashcards": LIST, "tabs": LIST, "width": TEXT, "caveats": TEXT},
        frozenset(),
    ),
}  # fmt: skip
# the fields of an item of a list or map: required, further
_USER = ({"email": TEXT, "password": TEXT}, {"first_name": MAYBE_TEXT, "last_name": MAYBE_TEXT})
_PREFS = ({"site_name": TEXT}, {"site_locale": MAYBE_TEXT})
_DASHCARD = (
    {"id": WHOLE, "row": WHOLE, "col": WHOLE, "size_x": WHOLE, "size_y": WHOLE},
    {
        "card_id": MAYBE_WHOLE, "parameter_mappings": LIST, "series": LIST, "inline_parameters": LIST,
        "visualization_settings": MAP, "dashboard_tab_id": MAYBE_WHOLE,
    },
)  # fmt: skip
_PARAMETER = (
    {"id": TEXT, "name": TEXT, "slug": TEXT, "type": TEXT},
    {"default": TEXT, "sectionId": TEXT, "values_query_type": TEXT, "filteringParameters": LIST},
)
_TAG = ({"id": TEXT, "name": TEXT, "display-name": TEXT, "type": TEXT}, {"default": TEXT, "required": FLAG})
_STARBURST = (
    {"host": TEXT, "port": WHOLE, "user": TEXT, "catalog": TEXT, "ssl": FLAG},
    {"schema": TEXT, "password": TEXT},
)
_PARAMETER_TYPES = {"category", "string/=", "date/single", "date/range", "date/all-options", "number/=", "id"}
WIDTH = 24


class Refused(Exception):
    def __init__(self, status: int, **errors: str) -> None:
        super().__init__(status, errors)
        self.status, self.errors = status, errors


def fields(given: Any, rule: tuple[dict[str, str], dict[str, str]], where: str = "body") -> None:
    """Raises Refused for what is missing, of another type, or unknown."""
    if not isinstance(given, dict):
        raise Refused(400, **{where: "value must be a map."})
    required, further = rule
    for name in required.keys() - given.keys():
        raise Refused(400, **{name: f"missing in {where}"})
    for name, value in given.items():
        kind = (required | further).get(name)
        if kind is None:
            raise Refused(400, **{name: f"{where} has no such field"})
        if not is_of(kind, value):
            raise Refused(400, **{name: f"{where}: value must be {kind}"})


@dataclass
class State:
    """What a Metabase holds."""

    version: str = "v0.56.4"
    starting: int = 0  # so many answers of health say that it is not ready yet
    token: str | None = field(default_factory=lambda: str(uuid.uuid4()))
    admin: Json | None = None
    sessions: set[str] = field(default_factory=set)
    databases: dict[int, Json] = field(default_factory=dict)
    collections: dict[int, Json] = field(default_factory=dict)
    cards: dict[int, Json] = field(default_factory=dict)
    boards: dict[int, Json] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    _number: int = 0

    def next(self) -> int:
        self._number += 1
        return self._number

    def things(self) -> Json:
        """All that provisioning can change."""
        return {n: getattr(self, n) for n in ("databases", "collections", "cards", "boards")}

    def answer(self, method: str, path: str, query: Json, body: Json | None, session: str | None) -> tuple[int, Any]:
        self.asked.append((method, path))
        shape = re.sub(r"/\d+", "/N", path.rstrip("/"))
        if (method, shape) not in RULES:
            raise Refused(404, path="API endpoint does not exist.")
        guarded, required, further, names = RULES[method, shape]
        if guarded and session not in self.sessions:
            raise Refused(401, session="Unauthenticated")
        for name in query.keys() - names:
            raise Refused(400, **{name: "no such parameter"})
        if method in ("POST", "PUT"):
            fields(body, (required, further))
        number = next(map(int, re.findall(r"/(\d+)", path)), 0)
        name = f"{method}_{'_'.join(shape.removeprefix('/api/').replace('/N', '').split('/'))}".lower()
        if shape.endswith("/N"):
            name += "_one"
        return getattr(self, name)(number, query, body or {})

    def get_health(self, *_: Any) -> tuple[int, Any]:
        if self.starting:
            self.starting -= 1
            return 503, {"status": "initializing", "progress": 0.3}
        return 200, {"status": "ok"}

    def get_session_properties(self, *_: Any) -> tuple[int, Any]:
        told = {"version": {"tag": self.version, "date": "2026-01-01"}, "has-user-setup": self.admin is not None}
        return 200, {**told, "setup-token": self.token, "engines": {"starburst": {}, "postgres": {}}}

    def post_setup(self, _: int, query: Json, body: Json) -> tuple[int, Any]:
        if self.admin is not None:
            raise Refused(403, token="The setup route can only be used to create the first user.")
        if body["token"] != self.token:
            raise Refused(400, token="Token does not match the setup token.")
        fields(body["user"], _USER, "user")
        fields(body["prefs"], _PREFS, "prefs")
        user = body["user"]
        if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[a-z]+", user["email"]):
            raise Refused(400, email="value must be a valid email address.")
        if len(user["password"]) < 6 or not re.search(r"\d", user["password"]):
            raise Refused(400, password="password is too common.")
        self.admin = user
        return 200, {"id": self._login()}

    def _login(self) -> str:
        made = str(uuid.uuid4())
        self.sessions.add(made)
        return made

    def post_session(self, _: int, query: Json, body: Json) -> tuple[int, Any]:
        admin = self.admin or {}
        if (body["username"], body["password"]) != (admin.get("email"), admin.get("password")):
            raise Refused(401, password="did not match stored password")
        return 200, {"id": self._login()}

    def get_database(self, *_: Any) -> tuple[int, Any]:
        return 200, {"data": [_without(d, "details") for d in self.databases.values()], "total": len(self.databases)}

    def post_database(self, _: int, query: Json, body: Json) -> tuple[int, Any]:
        self._engine(body)
        if body["connection_source"] not in ("admin", "setup"):
            raise Refused(400, connection_source="value must be admin or setup")
        made = {**body, "id": self.next()}
        self.databases[made["id"]] = made
        return 200, made

    def get_database_one(self, number: int, *_: Any) -> tuple[int, Any]:
        return 200, _one(self.databases, number)

    def put_database_one(self, number: int, query: Json, body: Json) -> tuple[int, Any]:
        self._engine(_one(self.databases, number) | body)
        self.databases[number] |= body
        return 200, self.databases[number]

    def _engine(self, body: Json) -> None:
        if body["engine"] != "starburst":
            raise Refused(400, engine="value must be a valid database engine.")
        fields(body["details"], _STARBURST, "details")

    def get_collection(self, *_: Any) -> tuple[int, Any]:
        root = {"id": "root", "name": "Our analytics", "can_write": True}
        return 200, [root, *self.collections.values()]

    def post_collection(self, _: int, query: Json, body: Json) -> tuple[int, Any]:
        made = {**body, "id": self.next(), "archived": False, "location": "/", "personal_owner_id": None}
        self.collections[made["id"]] = made
        return 200, made

    def get_collection_items(self, number: int, query: Json, _: Json) -> tuple[int, Any]:
        _one(self.collections, number)
        models = query.get("models", ["card", "dashboard"])
        kinds = {"card": self.cards, "dashboard": self.boards}
        found = [
            {"id": t["id"], "name": t["name"], "description": t.get("description"), "model": model}
            for model in models
            for t in kinds[model].values()
            if t.get("collection_id") == number and not t.get("archived")
        ]
        return 200, {"data": found, "total": len(found), "models": models}

    def get_card(self, *_: Any) -> tuple[int, Any]:
        return 200, [c for c in self.cards.values() if not c["archived"]]

    def post_card(self, _: int, query: Json, body: Json) -> tuple[int, Any]:
        self._question(body)
        made = {**body, "id": self.next(), "archived": False, "type": "question", "query_type": "native"}
        self.cards[made["id"]] = made
        return 200, made

    def put_card_one(self, number: int, query: Json, body: Json) -> tuple[int, Any]:
        self._question(_one(self.cards, number) | body)
        self.cards[number] |= body
        return 200, self.cards[number]

    def _question(self, card: Json) -> None:
        if card.get("collection_id") is not None:
            _one(self.collections, card["collection_id"])
        asked = card["dataset_query"]
        fields(asked, ({"type": TEXT, "database": WHOLE, "native": MAP}, {}), "dataset_query")
        _one(self.databases, asked["database"])
        fields(asked["native"], ({"query": TEXT}, {"template-tags": MAP, "collection": TEXT}), "native")
        tags = asked["native"].get("template-tags", {})
        used = set(re.findall(r"\{\{\s*([\w-]+)\s*\}\}", asked["native"]["query"]))
        if used != set(tags):
            raise Refused(400, **{"template-tags": "they are not the variables of the query"})
        for name, tag in tags.items():
            fields(tag, _TAG, "template-tag")
            if tag["name"] != name or tag["type"] not in ("text", "number", "date"):
                raise Refused(400, **{"template-tags": "wrong name or type"})

    def post_dashboard(self, _: int, query: Json, body: Json) -> tuple[int, Any]:
        self._parameters(body)
        made = {**body, "id": self.next(), "archived": False, "dashcards": [], "tabs": []}
        self.boards[made["id"]] = made
        return 200, made

    def get_dashboard_one(self, number: int, *_: Any) -> tuple[int, Any]:
        return 200, _one(self.boards, number)

    def put_dashboard_one(self, number: int, query: Json, body: Json) -> tuple[int, Any]:
        board = _one(self.boards, number)
        self._parameters(board | body)
        cards = body.get("dashcards")
        if cards is not None:
            if len({c.get("id") for c in cards}) != len(cards):
                raise Refused(400, dashcards="value must be seq of maps in which ids are unique")
            known = {c["id"] for c in board["dashcards"]}
            body = {**body, "dashcards": [self._dashcard(c, known, board | body) for c in cards]}
        self.boards[number] |= body
        return 200, self.boards[number]

    def _parameters(self, board: Json) -> None:
        for parameter in board.get("parameters", []):
            fields(parameter, _PARAMETER, "parameter")
            if parameter["type"] not in _PARAMETER_TYPES:
                raise Refused(400, parameters="no such type")

    def _dashcard(self, given: Json, known: set[int], board: Json) -> Json:
        fields(given, _DASHCARD, "dashcard")
        if given["id"] >= 0 and given["id"] not in known:
            raise Refused(404, dashcards="no such dashcard")
        if min(given["row"], given["col"]) < 0 or min(given["size_x"], given["size_y"]) < 1:
            raise Refused(400, dashcards="value must be an integer greater or equal to than zero.")
        if given["col"] + given["size_x"] > WIDTH:
            raise Refused(400, dashcards="beyond the grid")
        card = _one(self.cards, given["card_id"])
        ids = {p["id"] for p in board.get("parameters", [])}
        for mapping in given.get("parameter_mappings", []):
            fields(mapping, ({"parameter_id": TEXT, "target": LIST}, {"card_id": WHOLE}), "parameter_mapping")
            kind, (what, tag) = mapping["target"]
            tags = card["dataset_query"]["native"].get("template-tags", {})
            if (kind, what) != ("variable", "template-tag") or tag not in tags or mapping["parameter_id"] not in ids:
                raise Refused(400, parameter_mappings="it leads nowhere")
        number = given["id"] if given["id"] >= 0 else self.next()
        return {"visualization_settings": {}, "series": [], **given, "id": number, "created_at": "2026-01-01"}


def _without(thing: Json, name: str) -> Json:
    return {k: v for k, v in thing.items() if k != name}


def _one(things: dict[int, Json], number: int) -> Json:
    if number not in things:
        raise Refused(404, id="Not found.")
    return things[number]


@contextmanager
def metabase(state: State) -> Iterator[str]:
    """A server over that state; its address."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            size = int(self.headers.get("Content-Length") or 0)
            sent = self.rfile.read(size)
            try:
                if size and self.headers.get("Content-Type") != "application/json":
                    raise Refused(415, body="application/json is wanted")
                body = json.loads(sent) if size else None
                session = self.headers.get("X-Metabase-Session")
                status, told = state.answer(self.command, parts.path, parse_qs(parts.query), body, session)
            except Refused as refused:
                status, told = refused.status, {"errors": refused.errors}
            text = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = handle_any

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
