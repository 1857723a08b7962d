"""The page at / of a running server, as an operator sees it in a browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.database.queued import Clinic as Jobs
from tests.database.queued import reading
from tests.database.served import ADMIN, Served
from tests.fixtures.browser import Tab
from tests.fixtures.children import StartChild
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.migrated

Tabs = Callable[[], Tab]

#: How much lighter the lighter of text and ground is, for every text on the page, by the formula of WCAG 2.
CONTRAST = """(() => {
  const linear = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = parts(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), poor = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility()) continue;
    const both = [getComputedStyle(element).color, ground(element)];
    const [a, b] = [light(parts(both[0])), light(both[1])].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(1)} ${text}`);
  }
  return poor;
})()"""
#: Fields and buttons that nobody who does not see them knows the name of.
NAMELESS = """[...document.querySelectorAll('input, select, button, progress, [role=img]')]
  .filter((one) => !one.textContent.trim() && !one.labels?.length && !one.getAttribute('aria-label'))
  .map((one) => one.outerHTML)"""


@pytest.fixture
async def clinic(database: Database, tmp_path: Path, children: StartChild) -> AsyncIterator[Served]:
    served = Served(database, tmp_path, children)
    await served.build()
    served.replicate()
    await asyncio.to_thread(served.catch_up)
    await asyncio.to_thread(served.serve)
    await asyncio.to_thread(served.until_ready)
    yield served


def enter(tab: Tab, clinic: Served, token: str = ADMIN, **size: int) -> None:
    tab.open(clinic.url, **size)
    tab.until("!document.querySelector('#entrance').hidden")
    tab.write("#token", token)
    tab.click("#enter button")


def test_it_says_nothing_to_who_has_no_token(clinic: Served, tabs: Tabs) -> None:
    tab = tabs()
    enter(tab, clinic, ADMIN[:-1])
    tab.until("document.querySelector('#enter-says').textContent.includes('does not know')")
    assert clinic.slot not in tab.text()
    assert tab.value("document.querySelector('#status').hidden")
    for path, body in (("status", None), ("queue", None), ("queue", {}), ("buckets", {"user": "u1"})):
        assert clinic.request(f"/api/admin/v1/{path}", body, token=None)[0] == 401
    tab.value(f"location.hash = 'token={ADMIN}'")
    tab.until("!document.querySelector('#status').hidden")
    assert ADMIN not in tab.value("location.href")


def test_it_shows_how_everything_stands_and_when_it_does_not(clinic: Served, tabs: Tabs) -> None:
    tab = tabs()
    enter(tab, clinic)
    tab.until("document.querySelector('#verdict-text').textContent === 'all is well'")
    text = tab.text()
    assert clinic.slot in text and "tables copied" in text
    clinic.measure("a private matter", times=3)
    tab.until("document.querySelectorAll('#charts svg').length === 3")
    assert tab.value("document.querySelector('#charts svg').getAttribute('aria-label')").startswith("Through")
    assert clinic._last is not None
    clinic._last.kill()
    tab.until("document.body.innerText.includes('nobody replicates')")
    assert tab.value("document.querySelector('#verdict').dataset.level") == "error"
    trouble = tab.value("document.querySelector('.trouble').innerText")
    assert "Since" in trouble and "Start it" in trouble
    assert "private" not in tab.text()
    assert tab.complaints == []
    assert {one for one in tab.asked if not one.startswith((clinic.url, "data:"))} == set()
    assert clinic.serving is not None
    clinic.serving.kill()
    tab.until("document.querySelector('#verdict-text').textContent.includes('does not answer')")
    assert clinic.slot in tab.text(), "what was known last stays, and is said to be old"


def test_what_is_said_is_told_to_those_who_do_not_see_it(clinic: Served, tabs: Tabs) -> None:
    tab = tabs()
    enter(tab, clinic, width=360, height=740)
    tab.until("document.querySelector('#verdict-text').textContent === 'all is well'")
    tab.until("document.querySelectorAll('#charts svg').length >= 1")
    for selector in ("header", "main", "footer", "h1", "html[lang]", "[role=status][aria-live=polite]"):
        assert tab.value(f"document.querySelectorAll('{selector}').length") >= 1, selector
    assert tab.value(NAMELESS) == []
    assert tab.value("document.documentElement.scrollWidth") <= 360, "it is read on a phone, too"
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        tab.order("Emulation.setEmulatedMedia", features=features)
        assert tab.value(CONTRAST) == [], scheme


async def test_a_job_is_retried_and_parked_by_who_says_why(clinic: Served, tabs: Tabs) -> None:
    jobs = Jobs(clinic.database.dsn)
    await jobs.append(jobs.put("readings", reading("r1")))
    tab = await asyncio.to_thread(tabs)
    await asyncio.to_thread(_decide, tab, clinic)
    decided = clinic.database.execute("SELECT who, action, why FROM replicator.ehr_queue_audit ORDER BY id")
    assert decided == [("Dr Ngo", "park", "identity in doubt"), ("Dr Ngo", "retry", "identity is clear")]
    assert clinic.database.execute("SELECT state FROM replicator.ehr_lanes") == [("waiting",)]


def _decide(tab: Tab, clinic: Served) -> None:
    enter(tab, clinic)
    tab.until("!document.querySelector('#status').hidden")
    for state, button, why in (
        ("waiting", "Park", "identity in doubt"),
        ("parked", "Retry", "identity is clear"),
    ):
        tab.value(f"document.querySelector('#state').value = '{state}'")
        tab.click("#look")
        tab.until(f"document.querySelector('#job-rows button')?.textContent === '{button}'")
        assert "readings r1" in tab.text()
        tab.click("#job-rows button")
        if state == "waiting":
            tab.write("#who", "Dr Ngo")
        tab.write("#why", why)
        tab.click("#yes")
        tab.until(f"document.querySelector('#queue-says').textContent.startsWith('{button}')")


def test_a_users_buckets_are_shown_without_their_rows(clinic: Served, tabs: Tabs) -> None:
    clinic.measure("a private matter")
    clinic.catch_up()
    user = clinic.people()[0]
    tab = tabs()
    enter(tab, clinic)
    tab.until("!document.querySelector('#status').hidden")
    tab.write("#user", user)
    tab.click("#ask-buckets button")
    tab.until("document.querySelectorAll('#bucket-rows tr').length > 0")
    shown = tab.value("document.querySelector('#buckets').innerText")
    assert user in shown and "private" not in shown
    assert [one for one in tab.asked if user in one] == [], "who somebody is does not go into an address"


def test_it_may_show_nothing_of_elsewhere_nor_be_shown_there(clinic: Served) -> None:
    headers = _headers(clinic, "/")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


def _headers(clinic: Served, path: str) -> Any:
    import urllib.request

    with urllib.request.urlopen(f"{clinic.url}{path}", timeout=60) as answer:
        assert answer.status == 200
        return answer.headers
