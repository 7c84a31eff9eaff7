"""The annotation page by axe-core (WCAG 2.2 AA), in each of its states, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.page_harness import Page, annotating

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe here")

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
SIZES = pytest.mark.parametrize("size", [(1280, 720), (820, 1180)])
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])


def check(page: Page) -> None:
    """Nothing that axe-core knows is wrong, and nothing is wider than the window."""
    found = axe.Axe().run(page.page, options=RULES)
    assert found.violations_count == 0, found.generate_report()
    wide = page.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= page.page.viewport_size["width"]


@SIZES
@SCHEMES
def test_everybody_can_use_it(photos: Path, size: tuple[int, int], scheme: str) -> None:
    with annotating(photos, size=size, scheme=scheme) as (page, _):
        page.click_nut(0)
        page.name("nut")
        page.click_nut(1)
        page.page.locator("#why figure").first.wait_for()
        steps = (
            "#reasons summary",
            "[data-tool=reshape]",
            "#unfinished",
            "#show-groups",
            "#show-help",
        )
        for show in (None, *steps):
            if show:
                page.page.click(show)
                page.page.wait_for_timeout(600)
            check(page)


@SIZES
@SCHEMES
def test_everybody_sees_what_it_waits_for_and_what_is_wrong(
    photos: Path, size: tuple[int, int], scheme: str
) -> None:
    with annotating(photos, size=size, scheme=scheme, refused=(422, 503)) as (page, client):
        held: list[Any] = []

        def hold(route: Any) -> None:
            held.append(route)

        page.page.route("**/api/pictures/0", hold)
        page.page.reload()
        for each in ("#busy", "#preview"):
            page.page.locator(each).wait_for()
        check(page)
        held[0].continue_()
        page.said("0 named")
        page.page.unroute("**/api/pictures/0")
        # A decision that is not saved: neither is the library there, nor its server.
        body = '{"title": "Service Unavailable", "status": 503, "detail": "the library is gone"}'
        page.page.route(
            "**/decisions",
            lambda route: route.fulfill(
                status=503, content_type="application/problem+json", body=body
            ),
        )
        page.click_nut(0)
        page.decide("nut")
        page.seen("#saved", "not saved yet: the library is gone")
        check(page)
        page.page.unroute("**/decisions")
        page.saved()
        page.page.route("**/api/state*", lambda route: route.abort("connectionrefused"))
        page.seen("#saved", "the server cannot be reached")
        check(page)
        page.page.unroute("**/api/state*")
        page.saved()
        for picture in ("1.png", ""):
            page.page.click("#finish")
            if picture:
                page.seen("#picture-name", picture)
                page.said("named")
        page.page.locator("#all-finished").wait_for()
        check(page)
        (photos / "0.png").write_bytes(b"no picture")
        page.page.click("#close-finished")
        page.page.click("#previous")
        page.seen("#problem", "0.png")
        check(page)
        # The library view of a library that is not there any more.
        while client.post("api/undo", json={}).is_success:
            pass
        page.open(f"{client.base_url}library")
        page.page.locator("#empty").wait_for()
        check(page)
