"""Trino by its HTTP protocol, in the two calls that the stack itself needs: is it ready, and run this statement.

Users bring their own client (`trino` on PyPI, JDBC, Metabase); this one keeps the runtime free of a dependency.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

from claimhouse.errors import ClaimhouseError


class TrinoError(ClaimhouseError):
    """Trino refused a statement, or could not be reached."""


class Trino:
    """A Trino at `url`. Raises TrinoError."""

    def __init__(self, url: str, *, catalog: str, schema: str | None = None, user: str = "claimhouse") -> None:
        self.url = url
        self._headers = {"X-Trino-User": user, "X-Trino-Catalog": catalog, "X-Trino-Time-Zone": "UTC"}
        if schema:
            self._headers["X-Trino-Schema"] = schema

    def ready(self) -> bool:
        """True once it takes statements."""
        with urllib.request.urlopen(f"{self.url}/v1/info", timeout=5) as answer:
            return not json.loads(answer.read())["starting"]

    def run(self, sql: str, *, within: float = 120) -> list[tuple[Any, ...]]:
        """All rows of a statement, values as Trino's JSON has them (decimals and times are text)."""
        deadline = time.monotonic() + within
        page = self._ask(urllib.request.Request(f"{self.url}/v1/statement", sql.encode(), self._headers))
        rows: list[tuple[Any, ...]] = []
        while True:
            if error := page.get("error"):
                raise TrinoError(
                    f"trino: {error['errorName'].lower()}: {error['message']}", hint="look at the statement"
                )
            rows.extend(tuple(r) for r in page.get("data", ()))
            if "nextUri" not in page:
                return rows
            if time.monotonic() > deadline:
                raise TrinoError(f"no answer from trino within {within:.0f} s", hint="claimhouse stack status")
            page = self._ask(urllib.request.Request(page["nextUri"], headers=self._headers))

    def _ask(self, request: urllib.request.Request) -> dict[str, Any]:
        for attempt in range(5):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return json.loads(answer.read())
            except urllib.error.HTTPError as error:
                if error.code not in {502, 503, 504} or attempt == 4:
                    raise TrinoError(f"trino answers {error.code}", hint="claimhouse stack logs trino") from error
            except OSError as error:
                raise TrinoError("trino is not reachable", hint="claimhouse stack status") from error
            time.sleep(0.1 * 2**attempt)
        raise TrinoError("trino is not reachable", hint="claimhouse stack status")
