"""Sets Metabase up over its REST interface: admin, the Trino database, a collection, questions and dashboards.

    provision("http://127.0.0.1:3000", Trino("trino", 8080), password, source="main")

Open-source Metabase reads no configuration file, so this is the way. It may be run again at any time: what is there and
as it should be is left alone, what differs is put right, what is ours and no longer listed is archived. Our things are
told by a mark in their description, so a question that somebody renamed is found again; without a mark, by their name.
What others made is never touched.
"""

from __future__ import annotations

import json
import re
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from claimhouse.distributed.dashboards import CARDS, DASHBOARDS, Board, Card, sql_of, variables_of
from claimhouse.distributed.topology import Secrets, Topology
from claimhouse.distributed.views import schema_name
from claimhouse.errors import ClaimhouseError
from claimhouse.marts import find

EMAIL = "admin@claimhouse.local"
SITE, DATABASE, COLLECTION = "claimhouse", "claimhouse (Trino)", "claimhouse"
OLDEST = 54  # the first whose image has the Trino driver in it
_MARK = "claimhouse:"
Json = dict[str, Any]


class MetabaseError(ClaimhouseError):
    """Metabase refused something, is too old, or could not be reached."""


@dataclass(frozen=True)
class Trino:
    """The Trino that Metabase asks, as Metabase's own host reaches it."""

    host: str
    port: int
    catalog: str = "claimhouse"
    user: str = "metabase"

    def details(self, schema: str) -> Json:
        """The connection's fields of Metabase's driver `starburst`."""
        return {
            "host": self.host,
            "port": self.port,
            "catalog": self.catalog,
            "schema": schema,
            "user": self.user,
            "ssl": False,
        }


@dataclass
class Provisioned:
    """What came of it: how many things were made, changed, archived and left alone; each dashboard's address."""

    version: str = ""
    did: Counter[str] = field(default_factory=Counter)
    dashboards: dict[str, str] = field(default_factory=dict)

    @property
    def unchanged(self) -> bool:
        return not any(self.did[word] for word in ("made", "changed", "archived"))


def provision(
    url: str,
    trino: Trino,
    password: str,
    *,
    source: str = "main",
    email: str = EMAIL,
    within: float = 180.0,
    say: Callable[[str], None] = lambda _: None,
) -> Provisioned:
    """Bring Metabase at `url` to what dashboards.py lists. Waits `within` seconds for it to be up.

    `password` is the admin's, set where there is no admin yet. Raises MetabaseError.
    """
    api = Api(url.rstrip("/"))
    done = Provisioned(version=api.await_ready(within))
    if api.enter(email, password):
        done.did["made"] += 1
        say(f"made the admin {email} of Metabase {done.version}")
    database = _database(api, trino, source, done)
    collection = _collection(api, done)
    cards = _cards(api, database, collection, source, trino.catalog, done)
    for board in DASHBOARDS:
        number = _dashboard(api, board, collection, cards, done)
        done.dashboards[board.name] = f"{api.url}/dashboard/{number}"
    say(f"Metabase {done.version}: " + ", ".join(f"{n} {word}" for word, n in sorted(done.did.items()) if n))
    return done


def admin_password(keys: Secrets) -> str:
    """The admin's password as the stack's secrets have it: with a digit, which Metabase asks for."""
    return keys.metabase if re.search(r"\d", keys.metabase) else keys.metabase + "7"


class Api:
    """Metabase's REST interface; `enter` before anything that needs a session."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session: str | None = None
        self._properties: Json = {}

    def await_ready(self, within: float) -> str:
        """Wait until it answers and is one that we know; its version. Raises MetabaseError."""
        deadline = time.monotonic() + within
        while True:
            try:
                if self.ask("GET", "/api/health").get("status") == "ok":
                    break
                trouble = "is still starting"
            except MetabaseError as error:
                trouble = str(error)
            if time.monotonic() > deadline:
                raise MetabaseError(
                    f"metabase at {self.url} is not ready after {within:.0f} s: {trouble}",
                    hint="docker compose ps metabase; docker compose logs metabase",
                )
            time.sleep(min(1.0, within / 10))
        self._properties = self.ask("GET", "/api/session/properties")
        version = str((self._properties.get("version") or {}).get("tag") or "unknown")
        found = re.match(r"v[01]\.(\d+)", version)
        if found is None or int(found[1]) < OLDEST:
            raise MetabaseError(
                f"metabase {version} has no driver for Trino in it", hint=f"use {OLDEST} or newer; see compose.yaml"
            )
        return version

    def enter(self, email: str, password: str) -> bool:
        """Make the admin where there is none (True), else log in. Raises MetabaseError."""
        if not self._properties.get("has-user-setup"):
            body = {
                "token": self._properties.get("setup-token"),
                "user": {"email": email, "password": password, "first_name": "claimhouse", "last_name": "admin"},
                "prefs": {"site_name": SITE, "site_locale": "en"},
            }
            self._session = str(self.ask("POST", "/api/setup", body)["id"])
            return True
        try:
            self._session = str(self.ask("POST", "/api/session", {"username": email, "password": password})["id"])
        except MetabaseError as error:
            raise MetabaseError(
                f"metabase does not let {email} in: {error}",
                hint="it was set up by somebody else, or with other secrets: reset that password, or start it anew",
            ) from None
        return False

    def ask(self, method: str, path: str, body: Json | None = None) -> Any:
        """One call's answer. Raises MetabaseError with what Metabase says of it, never with what was sent."""
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._session:
            headers["X-Metabase-Session"] = self._session
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise MetabaseError(
                f"metabase answers {error.code} to {method} {path}{_reason(error)}",
                hint="docker compose logs metabase",
            ) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise MetabaseError(
                f"metabase is not reachable at {self.url} ({reason})", hint="docker compose ps metabase"
            ) from None
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise MetabaseError(f"what answers at {self.url} is not metabase", hint="check the address") from None


def _reason(error: urllib.error.HTTPError) -> str:
    """The fields that Metabase complains of; its words may repeat what was sent."""
    try:
        told = json.loads(error.read())
    except (ValueError, OSError):
        return ""
    fields = told.get("errors") if isinstance(told, dict) else None
    return f": {', '.join(sorted(fields))}" if isinstance(fields, dict) and fields else ""


def _listed(answer: Any) -> list[Json]:
    """A list, or one within `data`: Metabase has both."""
    found = answer.get("data", []) if isinstance(answer, dict) else answer
    return [f for f in found if isinstance(f, dict)]


def _database(api: Api, trino: Trino, source: str, done: Provisioned) -> int:
    details = trino.details(schema_name(source, "public"))
    wanted = {"name": DATABASE, "engine": "starburst", "details": details, "auto_run_queries": True}
    there = next((d for d in _listed(api.ask("GET", "/api/database")) if d["name"] == DATABASE), None)
    if there is None:
        sync = {"is_full_sync": True, "is_on_demand": False, "connection_source": "admin"}
        made = api.ask("POST", "/api/database", wanted | sync)
        done.did["made"] += 1
        return int(made["id"])
    there = api.ask("GET", f"/api/database/{there['id']}")
    known = there.get("details") or {}
    if there["engine"] == "starburst" and all(known.get(k) == v for k, v in details.items()):
        done.did["left"] += 1
    else:
        api.ask("PUT", f"/api/database/{there['id']}", wanted)
        done.did["changed"] += 1
    return int(there["id"])


def _collection(api: Api, done: Provisioned) -> int:
    for found in _listed(api.ask("GET", "/api/collection")):
        if found["name"] == COLLECTION and not found.get("archived") and not found.get("personal_owner_id"):
            done.did["left"] += 1
            return int(found["id"])
    made = api.ask("POST", "/api/collection", {"name": COLLECTION, "description": "Figures over the claims lake."})
    done.did["made"] += 1
    return int(made["id"])


def _cards(api: Api, database: int, collection: int, source: str, catalog: str, done: Provisioned) -> dict[str, int]:
    """Each card's number by its key."""
    ours = [c for c in _listed(api.ask("GET", "/api/card?f=all")) if c.get("collection_id") == collection]
    numbers: dict[str, int] = {}
    for card in CARDS:
        wanted = _question(card, database, collection, source, catalog)
        there = _found(ours, card.key, card.name)
        if there is None:
            numbers[card.key] = int(api.ask("POST", "/api/card", wanted)["id"])
            done.did["made"] += 1
            continue
        numbers[card.key] = int(there["id"])
        if _same(there, wanted):
            done.did["left"] += 1
        else:
            api.ask("PUT", f"/api/card/{there['id']}", wanted | {"archived": False})
            done.did["changed"] += 1
    for other in ours:
        key = _marked(other)
        if key is not None and key not in numbers and not other.get("archived"):
            api.ask("PUT", f"/api/card/{other['id']}", {"archived": True})
            done.did["archived"] += 1
    return numbers


def _question(card: Card, database: int, collection: int, source: str, catalog: str) -> Json:
    sql = sql_of(card, source, catalog)
    says = f"{find(card.figure).definition} " if card.figure else ""
    tags = {name: _tag(card, name) for name in variables_of(sql)}
    return {
        "name": card.name,
        "description": f"{says}[{_MARK}{card.key}]",
        "display": card.display,
        "collection_id": collection,
        "dataset_query": {
            "type": "native",
            "database": database,
            "native": {"query": sql, "template-tags": tags},
        },
        "visualization_settings": card.shows,
    }


def _tag(card: Card, name: str) -> Json:
    kind = "date" if name == "valuation" else "text"
    return {"id": f"{card.key}-{name}", "name": name, "display-name": _FILTERS[name]["name"], "type": kind}


_FILTERS = {
    "valuation": {"id": "valuation", "name": "Valued as of", "slug": "valuation", "type": "date/single"},
    "line": {"id": "line", "name": "Line of business", "slug": "line", "type": "category"},
}


def _dashboard(api: Api, board: Board, collection: int, cards: dict[str, int], done: Provisioned) -> int:
    everything = _listed(api.ask("GET", f"/api/collection/{collection}/items?models=dashboard&limit=1000"))
    there = _found(everything, board.key, board.name)
    wanted: Json = {
        "name": board.name,
        "description": f"{board.says} [{_MARK}{board.key}]",
        "collection_id": collection,
        "parameters": [_FILTERS[name] for name in board.filters],
    }
    if there is None:
        there = api.ask("POST", "/api/dashboard", wanted)
        done.did["made"] += 1
        fresh = True
    else:
        fresh = False
    number = int(there["id"])
    now = api.ask("GET", f"/api/dashboard/{number}")
    placed = _placed(board, cards, now.get("dashcards") or [])
    if _same(now, wanted) and _same_places(now.get("dashcards") or [], placed):
        done.did["left"] += not fresh
        return number
    api.ask("PUT", f"/api/dashboard/{number}", wanted | {"dashcards": placed})
    done.did["changed"] += not fresh
    return number


def _placed(board: Board, cards: dict[str, int], there: list[Json]) -> list[Json]:
    """The dashboard's places; one that is there keeps its number, a new one has a negative one."""
    known = {d.get("card_id"): d["id"] for d in there}
    found = []
    for index, place in enumerate(board.places):
        card = next(c for c in CARDS if c.key == place.card)
        number = cards[card.key]
        used = set(variables_of(sql_of(card, SITE, SITE)))
        found.append(
            {
                "id": known.get(number, -1 - index),
                "card_id": number,
                "row": place.row,
                "col": place.col,
                "size_x": place.wide,
                "size_y": place.high,
                "parameter_mappings": [_mapping(number, name) for name in board.filters if name in used],
            }
        )
    return found


def _mapping(card: int, name: str) -> Json:
    return {"parameter_id": name, "card_id": card, "target": ["variable", ["template-tag", name]]}


def _found(there: list[Json], key: str, name: str) -> Json | None:
    """What is ours by its mark, else what nobody marked and has the name."""
    by_mark = next((t for t in there if _marked(t) == key), None)
    return by_mark or next((t for t in there if _marked(t) is None and t["name"] == name), None)


def _marked(thing: Json) -> str | None:
    found = re.search(rf"\[{_MARK}([a-z_]+)\]", thing.get("description") or "")
    return found[1] if found else None


def _same(there: Json, wanted: Json) -> bool:
    """Whether all that we ask for is so; what Metabase adds by itself is no difference."""
    return not there.get("archived") and all(_within(there.get(k), v) for k, v in wanted.items())


def _within(there: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(_within(there.get(k), v) for k, v in wanted.items())
    if isinstance(wanted, list):
        pairs = zip(there, wanted, strict=True) if isinstance(there, list) and len(there) == len(wanted) else None
        return pairs is not None and all(_within(t, w) for t, w in pairs)
    return there == wanted


def _same_places(there: list[Json], wanted: list[Json]) -> bool:
    by_number = {d["id"]: d for d in there}
    return set(by_number) == {w["id"] for w in wanted} and all(_within(by_number[w["id"]], w) for w in wanted)


def main(folder: str, url: str = "http://metabase:3000") -> int:
    """Provision with the addresses and secrets of a stack's folder; what the Compose file's own step runs."""
    topology, keys = Topology.load(Path(folder) / "topology.json"), Secrets.load(Path(folder) / "secrets.json")
    trino = Trino(topology.host("trino"), topology.port("trino"), topology.catalog)
    try:
        provision(url, trino, admin_password(keys), source=topology.source, within=600, say=print)
    except MetabaseError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
