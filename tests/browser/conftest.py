"""A console over a claims lake, and Chromium in front of it. A page that errs, or asks another host, fails its test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from tests.console import claimslake
from tests.console.claimslake import TOKEN, ClaimsLake, hits_of, served

from claimhouse.console.app import Console
from claimhouse.postgres.embedded import Embedded

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="session")
def claims_lake(server: Embedded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClaimsLake]:
    made = claimslake.make(server, tmp_path_factory.mktemp("browser"))
    yield made
    claimslake.drop(server, made)


@pytest.fixture(scope="session")
def base(claims_lake: ClaimsLake) -> Iterator[str]:
    """The console's address without a path."""
    console = Console(claims_lake.lake, user="an examiner", queue=lambda session: hits_of(claims_lake.number))
    with served(console) as running:
        yield running.url.partition("/overview")[0]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "Chromium is needed: make test-browser installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser, base: str) -> Iterator[Callable[..., Page]]:
    """Opens pages that are let in; at the end nothing may have gone wrong on any of them."""
    wrong: list[str] = []
    contexts = []

    def opened(path: str = "/overview", *, of: str = base, **how: Any) -> Page:
        context = chromium.new_context(base_url=of, **{"viewport": {"width": 1440, "height": 900}, **how})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("console", lambda m: wrong.append(f"console: {m.text}") if _bad(m) else None)
        page.on("request", lambda r: wrong.append(f"asked {r.url}") if _foreign(r.url, of) else None)
        page.goto(f"{path}{'&' if '?' in path else '?'}token={TOKEN}")
        page.wait_for_selector("html[data-ready]")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def _bad(message: Any) -> bool:
    """What a browser complains of, but for the status of a page that is not there."""
    return message.type in ("error", "warning") and "status of 40" not in message.text


def _foreign(url: str, base: str) -> bool:
    return urlsplit(url).netloc != urlsplit(base).netloc and not url.startswith(("data:", "blob:"))
