"""The console as people use it: each page and main path, by mouse and by keyboard alone, live and in the past."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.console.claimslake import IMAGE, TOKEN, ClaimsLake, served

from claimhouse.console.app import Console
from claimhouse.fraud.evaluate import Hit
from claimhouse.fraud.hits import Event, HitWriter
from claimhouse.fraud.rule import load_rules
from claimhouse.lake.snapshot import take
from claimhouse.marts.mirror import Moment

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
PAGES = ("/overview", "/claims", "/claims/{number}", "/fraud", "/figures", "/figures/all", "/figures/large_losses",
         "/tables", "/tables/main/public/claim", "/tables/main/public/claim/row?key.claim_id={id}")  # fmt: skip
COUNTED = "([what, count]) => document.querySelectorAll(what).length === count"  # a function: the policy forbids eval
SAID = "([what, text]) => document.querySelector(what).innerText === text"
LIVE = "() => document.querySelector('#live')._htmx?.sse"
Opener = Callable[..., Any]


def filled(path: str, lake: ClaimsLake) -> str:
    return path.format(number=lake.number, id=lake.claim_id)


def moment(page: Page) -> str | None:
    return parse_qs(urlsplit(page.url).query).get("at", [None])[0]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_fits_every_width_and_has_no_serious_finding(
    open_page: Opener, claims_lake: ClaimsLake, path: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for theme, width in (("light", 1440), ("dark", 1024), ("dark", 390)):
        page = open_page(filled(path, claims_lake), color_scheme=theme, viewport={"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page).response["violations"]
        serious = [
            (v["id"], v["nodes"][0]["html"][:200], v["nodes"][0]["failureSummary"][-200:])
            for v in found
            if v["impact"] in ("serious", "critical")
        ]
        assert serious == [], (theme, width)


def test_the_planted_image_is_text_and_runs_nothing(open_page: Opener, claims_lake: ClaimsLake) -> None:
    for path in ("/claims/{number}", "/claims", "/fraud", "/tables/main/public/claim"):
        page = open_page(filled(path, claims_lake))
        assert page.locator("#page img").count() == 0
        page.get_by_text(IMAGE).first.wait_for(state="attached")
        assert page.title() != "1"


def test_a_new_claim_arrives_live_and_pause_holds_it_back(open_page: Opener, claims_lake: ClaimsLake) -> None:
    page = open_page("/overview")
    with claims_lake.captured():
        page.wait_for_function(LIVE)
        claims_lake.new_claim("CLM-LIVE-1")
        page.locator("#claim-feed").get_by_text("CLM-LIVE-1").wait_for()
        assert "CLM-LIVE-1" in page.locator("#claim-feed li").first.inner_text()
        assert re.search(r"\d", page.locator(".hop-now").first.inner_text())
        page.get_by_role("button", name="Pause").click()
        claims_lake.new_claim("CLM-LIVE-2")
        page.wait_for_timeout(4000)
        assert page.get_by_text("CLM-LIVE-2").count() == 0
        page.get_by_role("button", name="Resume").click()
        page.locator("#claim-feed").get_by_text("CLM-LIVE-2").wait_for()
    page.locator("#claim-feed").get_by_text("CLM-LIVE-2").click()
    page.get_by_role("heading", name="CLM-LIVE-2").wait_for()


def test_the_stream_is_opened_once_even_where_its_script_comes_late(chromium: Any, base: str) -> None:
    page = chromium.new_context(base_url=base).new_page()
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url) if "/live?" in r.url else None)
    page.route("**/hx-sse.min.js", lambda route: (time.sleep(1.0), route.continue_()))
    page.goto(f"/overview?token={TOKEN}")
    page.wait_for_function(LIVE)
    page.wait_for_timeout(1000)
    assert len(asked) == 1
    page.context.close()


def test_indicators_come_and_go_on_open_pages(open_page: Opener, claims_lake: ClaimsLake) -> None:
    lake, rules = claims_lake.lake, load_rules().rules
    writer = HitWriter(lake, "main")

    def now() -> Moment:
        mark = take(lake, "main").mark
        return Moment("main", mark.incarnation, mark.cut, mark.end_lsn, mark.max_committed_at)

    def hit(rule: str, claim: str) -> Hit:
        return Hit(rule, claim, f"CLM-HIT-{claim}", 1.0, '{"days": 3}')

    with served(Console(lake, user="an examiner")) as running:
        base = running.url.partition("/overview")[0]
        early = open_page("/fraud", of=base)
        early.get_by_role("heading", name="No fraud rules have run").wait_for()
        early.wait_for_function(LIVE)
        early.wait_for_timeout(1000)
        writer.append([Event("held", hit("early_loss", "1"))], now(), rules)
        early.locator('.entry[data-claim="CLM-HIT-1"]').wait_for()  # the first hits bring the queue
        overview, queue = open_page("/overview", of=base), open_page("/fraud", of=base)
        for page in (overview, queue):
            page.wait_for_function(LIVE)
        one = queue.locator('.entry[data-claim="CLM-HIT-1"]')
        note = one.get_by_label("Note")
        note.fill("half a thought")
        writer.append([Event("held", hit("over_limit", "1")), Event("held", hit("early_loss", "2"))], now(), rules)
        began = time.monotonic()
        queue.locator('#arrived .entry[data-claim="CLM-HIT-2"]').wait_for()
        print(f"shown after {time.monotonic() - began:.2f} s")
        queue.wait_for_function(COUNTED, arg=['.entry[data-claim="CLM-HIT-1"] .hits > li', 2])
        one.locator(".entry-score").get_by_text("high").first.wait_for()
        assert note.input_value() == "half a thought" and note.evaluate("n => n === document.activeElement")
        queue.wait_for_function(SAID, arg=["#all", "2"])
        overview.locator("#hit-feed").get_by_text("CLM-HIT-2").wait_for()
        writer.append([Event("withdrawn", hit("early_loss", "2"))], now(), rules)
        queue.get_by_text("no indicator holds any longer").wait_for()
        queue.wait_for_function(SAID, arg=["#all", "1"])
        overview.wait_for_function(COUNTED, arg=["#hit-feed li", 2])
        assert overview.get_by_text("CLM-HIT-2").count() == 0
        for page in (early, overview, queue):
            page.context.close()


def test_the_slider_goes_back_by_arrow_keys_one_transaction_at_a_time(
    open_page: Opener, claims_lake: ClaimsLake
) -> None:
    page = open_page(f"/claims/{claims_lake.number}")
    versions = page.locator(".timeline > li")
    before = versions.count()
    page.locator("#slider").focus()
    seen: list[str | None] = []
    deadline = time.monotonic() + 120
    while versions.count() == before and time.monotonic() < deadline:
        was = moment(page)
        page.keyboard.press("ArrowLeft")
        page.wait_for_url(lambda url, was=was: parse_qs(urlsplit(url).query).get("at", [None])[0] != was)
        page.wait_for_function("() => !document.body.classList.contains('busy')")
        seen.append(moment(page))
        assert page.evaluate("document.activeElement.id") == "slider"
    assert versions.count() == before - 1 and None not in seen
    assert "past" in (page.locator("#bar").get_attribute("class") or "")
    assert f"at={seen[-1]}" in page.locator("#nav a").nth(1).get_attribute("href").replace("%2F", "/")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert versions.count() == before - 1
    page.locator("#now").click()
    page.wait_for_url(lambda url: "at=" not in url)
    page.wait_for_function(COUNTED, arg=[".timeline > li", before])
    page.go_back()
    page.wait_for_function(COUNTED, arg=[".timeline > li", before - 1])


def test_a_time_that_is_not_in_the_lake_is_explained(open_page: Opener) -> None:
    page = open_page("/claims")
    page.locator("#at-time").fill("2999-02-03T04:05:06")
    page.get_by_role("button", name="Go", exact=True).click()
    page.get_by_role("alert").wait_for()
    assert "not final yet" in page.get_by_role("alert").inner_text()
    page.get_by_role("link", name="Show it as of now").click()
    page.get_by_role("heading", name="Claims").wait_for()


def test_a_position_is_gone_to_from_the_bar(open_page: Opener, claims_lake: ClaimsLake) -> None:
    page = open_page(f"/claims/{claims_lake.number}")
    page.get_by_label("Or a position, transaction or cut").fill("cut:1")
    page.keyboard.press("Enter")
    page.wait_for_url("**at=cut%3A1")
    page.locator("#bar.past, #bar.wrong").wait_for()


def test_nothing_sticks_out_of_its_card(open_page: Opener) -> None:
    for width in (1440, 1024, 390):
        page = open_page("/overview", viewport={"width": width, "height": 900})
        out = """() => [...document.querySelectorAll('.card .feed-item > *')].filter(part =>
            part.getBoundingClientRect().right > part.closest('.card').getBoundingClientRect().right).length"""
        assert page.locator("#hit-feed .feed-item").count() > 0 and page.evaluate(out) == 0, width


def test_an_investigator_finds_decides_and_sees_it_by_keyboard_alone(
    open_page: Opener, claims_lake: ClaimsLake
) -> None:
    page = open_page("/fraud")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "verdict" and page.evaluate(
            "!!document.activeElement.closest('.entry-do')"
        ):
            break
        if page.evaluate("document.activeElement.type") == "datetime-local":
            continue  # its parts carry the ring
        ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring != "none", page.evaluate("document.activeElement.outerHTML")
    page.keyboard.press("r")  # Referred …
    page.keyboard.press("Tab")
    page.keyboard.type("See the invoice")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("See the invoice").wait_for()
    entry = page.locator(".entry").first.inner_text()
    assert claims_lake.number in entry and "an examiner" in entry and "Referred" in entry


def test_a_search_filters_and_stands_in_the_address(open_page: Opener, claims_lake: ClaimsLake) -> None:
    page = open_page("/claims")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type(claims_lake.number)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: f"q={claims_lake.number}" in url)
    page.wait_for_function(COUNTED, arg=[".list tbody tr", 1])
    page.get_by_role("link", name=claims_lake.number).click()
    page.get_by_role("heading", name=claims_lake.number).wait_for()
    page.wait_for_function(COUNTED, arg=[".chart canvas", 1])


def test_a_cell_of_the_triangle_leads_to_its_claims_and_a_claim(open_page: Opener) -> None:
    page = open_page("/figures")
    page.locator(".heat td a").nth(2).click()
    page.get_by_role("heading", name="at").first.wait_for()
    number = page.locator(".list tbody th a").first.inner_text()
    page.locator(".list tbody th a").first.click()
    page.get_by_role("heading", name=number).wait_for()


def test_theme_and_zone_are_chosen_and_kept(open_page: Opener) -> None:
    page = open_page("/overview", color_scheme="light", timezone_id="Asia/Tokyo")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.locator("#theme").click()
    page.locator("#theme").click()
    assert page.locator("#theme-name").inner_text() == "dark" and page.evaluate(ground) != light
    utc = page.locator("#bar time").inner_text()
    page.locator("#zone").click()
    assert page.locator("#bar time").inner_text() != utc
    page.goto("/claims")
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate(ground) != light and page.locator("#zone").inner_text() == "local"


def test_without_the_token_the_page_stays_shut(chromium: Any, base: str) -> None:
    page = chromium.new_context(base_url=base).new_page()
    assert page.goto("/claims").status == 401
    assert page.get_by_text("needs its token").count() == 1
