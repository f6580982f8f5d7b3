"""Trino by its HTTP protocol, in the few calls that we need: is it ready, run this statement, read it page by page.

Users bring their own client (`trino` on PyPI, JDBC, Metabase); this one keeps the runtime free of a dependency.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from claimhouse.errors import ClaimhouseError


class TrinoError(ClaimhouseError):
    """Trino refused a statement, or could not be reached. `kind` is Trino's name of the error, in capitals."""

    def __init__(self, message: str, *, hint: str | None = None, kind: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Page:
    """A part of an answer, as Trino's JSON has it. `columns` is empty until Trino knows them."""

    columns: list[dict[str, Any]]
    rows: list[list[Any]]


class Trino:
    """A Trino at `url`. Raises TrinoError."""

    def __init__(self, url: str, *, catalog: str, schema: str | None = None, user: str = "claimhouse") -> None:
        self.url, self.catalog = url, catalog
        self._headers = {
            "X-Trino-User": user,
            "X-Trino-Catalog": catalog,
            "X-Trino-Time-Zone": "UTC",
            "X-Trino-Client-Capabilities": "PARAMETRIC_DATETIME",  # else times are cut to the millisecond
        }
        if schema:
            self._headers["X-Trino-Schema"] = schema

    def ready(self) -> bool:
        """True once it takes statements."""
        with urllib.request.urlopen(f"{self.url}/v1/info", timeout=5) as answer:
            return not json.loads(answer.read())["starting"]

    def run(self, sql: str, *, within: float = 120) -> list[tuple[Any, ...]]:
        """All rows of a statement, values as Trino's JSON has them (decimals and times are text)."""
        return [tuple(row) for page in self.pages(sql, within=within) for row in page.rows]

    def pages(self, sql: str, *, within: float | None = None) -> Iterator[Page]:
        """A statement's answer page by page; one that is not read to its end is cancelled.

        `within`: seconds after which it is given up.
        """
        deadline = None if within is None else time.monotonic() + within
        told = self._ask(urllib.request.Request(f"{self.url}/v1/statement", sql.encode(), self._headers))
        try:
            while True:
                if error := told.get("error"):
                    raise TrinoError(
                        f"trino: {error['errorName'].lower()}: {error['message']}",
                        hint="look at the statement",
                        kind=error["errorName"],
                    )
                yield Page(told.get("columns") or [], told.get("data") or [])
                if "nextUri" not in told:
                    return
                if deadline is not None and time.monotonic() > deadline:
                    raise TrinoError(f"no answer from trino within {within:.0f} s", hint="claimhouse stack status")
                told = self._ask(urllib.request.Request(told["nextUri"], headers=self._headers))
        finally:
            if "nextUri" in told and not told.get("error"):
                with suppress(TrinoError):
                    self._ask(urllib.request.Request(told["nextUri"], headers=self._headers, method="DELETE"))

    def _ask(self, request: urllib.request.Request) -> dict[str, Any]:
        for attempt in range(5):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return json.loads(answer.read() or "{}")
            except urllib.error.HTTPError as error:
                if error.code not in {502, 503, 504} or attempt == 4:
                    raise TrinoError(f"trino answers {error.code}", hint="claimhouse stack logs trino") from error
            except (OSError, ValueError) as error:
                raise TrinoError(f"trino is not reachable at {self.url}", hint="claimhouse stack status") from error
            time.sleep(0.1 * 2**attempt)
        raise TrinoError(f"trino is not reachable at {self.url}", hint="claimhouse stack status")
