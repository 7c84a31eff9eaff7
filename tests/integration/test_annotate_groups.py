"""Groups of alike objects on the annotation page that are not what they seem."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.browser import browser
from tests.integration.page_harness import Page, draw_photos, serving
from tests.integration.test_annotate_outbox import objects

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")


def surveyed(page: Page) -> None:
    """Waits until the groups are those of both pictures."""
    page.page.locator("#groups p").filter(has_text="of 2 pictures").wait_for(timeout=60_000)


def test_a_group_of_background_is_removed_at_once(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos")
    with browser() as chromium, serving(photos) as (url, _), httpx.Client(base_url=url) as client:
        page = Page(chromium)
        page.open(url)
        page.said("0 named")
        page.page.click("#show-groups")
        surveyed(page)
        before = {each["id"] for number in range(2) for each in objects(url, number)}
        group = client.get("api/groups").json()["groups"][0]["members"]
        first = page.page.locator(".objects-group").first
        first.locator(".members button").first.click()
        first.get_by_role("button", name="No objects").click()
        page.saved()
        assert client.get("api/labels").json()["labels"] == [], "nothing is learnt of it"
        there = {each["id"] for number in range(2) for each in objects(url, number)}
        assert {each["object"] for each in group} & there == {group[0]["object"]}
        assert client.post("api/undo", json={}).json()["title"].startswith("delete")
        again = {each["id"] for number in range(2) for each in objects(url, number)}
        assert again == before
        assert page.errors == []


def test_a_group_with_a_wrong_name_is_rejected_at_once(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos")
    with browser() as chromium, serving(photos) as (url, _), httpx.Client(base_url=url) as client:
        page = Page(chromium)
        page.open(url)
        page.said("0 named")
        page.click_nut(0)
        page.name("nut")
        page.saved()
        page.page.click("#show-groups")
        suggested = page.page.locator(".objects-group").filter(has_text="Suggested: nut")
        surveyed(page)
        suggested.get_by_role("button", name="Not nut").click()
        page.saved()
        named = [each for number in range(2) for each in objects(url, number) if each["label"]]
        assert [each["taught"] for each in named] == [True], "only the example is a nut"
        assert client.get("api/labels").json()["labels"] == [{"label": "nut", "examples": 1}]
        assert page.errors == []
