"""What users decide on the annotation page while the server is away, and what comes twice."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser import browser
from tests.integration.page_harness import (
    ALL_SAVED_MS,
    Page,
    annotating,
    labels,
    objects,
    serving,
    taught,
)

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")


def test_a_decision_waits_until_the_disk_has_room(photos: Path) -> None:
    with annotating(photos, refused=(507,)) as (page, client):
        full = [507, 507]

        def answer(route: Any) -> None:
            if not full:
                route.continue_()
                return
            body = '{"title": "Insufficient Storage", "status": 507, "detail": "free some space"}'
            route.fulfill(status=full.pop(), content_type="application/problem+json", body=body)

        page.page.route("**/decisions", answer)
        page.click_nut(0)
        page.decide("nut")
        page.seen("#saved", "not saved yet: free some space")
        page.saved(ALL_SAVED_MS)
        assert full == []
        assert [*taught(client).values()] == ["nut"]


def test_a_stroke_in_which_the_server_went_away_survives_the_page(photos: Path) -> None:
    with browser() as chromium:
        page = Page(chromium)
        with serving(photos) as (url, process):
            page.start(url)
            page.click_nut(0)
            page.page.click("[data-tool=brush]")
            page.page.keyboard.press("Escape")
            page.page.click("[data-tool=brush]")
            page.page.mouse.move(*page.place(120, 200).values())
            page.page.mouse.down()
            page.page.mouse.move(*page.place(130, 200).values(), steps=4)
            process.kill()
            process.wait()
            page.page.mouse.move(*page.place(150, 200).values(), steps=4)
            page.page.mouse.up()
            page.waiting(1)
            page.page.click("[data-tool=select]")
            page.click_nut(1)
            page.decide("nut")
            page.waiting(2)
            # What is decided is shown, although the server has not confirmed it.
            page.said(r"1 named \(1 by you\)")
            assert page.errors == []
            again = Page(chromium, beside=page)
            page.page.close()
        port = str(httpx.URL(url).port)
        with serving(photos, "--port", port) as (url, _), httpx.Client(base_url=url) as client:
            again.open(url)
            again.said(r"\(1 by you\)")
            again.saved(ALL_SAVED_MS)
            drawn = [each for each in objects(client) if each["drawn"]]
            assert [each["bbox_xywh"][2] > 25 for each in drawn] == [True]
            assert [*taught(client).values()] == ["nut"]
            # Nothing is left that another page would send again.
            assert again.page.evaluate("Object.keys(localStorage).join()").count("outbox") == 0
            assert again.errors == []


def test_strokes_on_one_object_while_the_server_is_away_become_one_object(photos: Path) -> None:
    with browser() as chromium:
        page = Page(chromium)
        with serving(photos) as (url, process):
            page.start(url)
            page.page.click("[data-tool=brush]")
            page.drag((120, 200), (140, 200))
            page.saved()
            page.page.wait_for_timeout(300)
            process.kill()
            process.wait()
            page.drag((140, 200), (150, 200))
            page.drag((120, 200), (110, 200))
            page.waiting(2)
        port = str(httpx.URL(url).port)
        with serving(photos, "--port", port) as (url, _), httpx.Client(base_url=url) as client:
            page.saved(ALL_SAVED_MS)
            drawn = [each["bbox_xywh"] for each in objects(client) if each["drawn"]]
            assert len(drawn) == 1
            assert drawn[0][0] < 110, "the second stroke is in it"
            assert drawn[0][0] + drawn[0][2] > 150, "... and the first"


def test_a_decision_whose_answer_was_lost_is_done_once(photos: Path) -> None:
    with annotating(photos) as (page, client):
        lost: list[str] = []

        def lose_the_first(route: Any) -> None:
            if lost:
                route.continue_()
                return
            lost.append(route.request.url)
            route.fetch()
            route.abort("connectionreset")

        page.page.route("**/decisions", lose_the_first)
        page.click_nut(0)
        page.decide("nut")
        page.waiting(1)
        page.saved()
        assert len(lost) == 1
        assert client.post("api/undo", json={}).json()["undo"] is None, "it was one change"
        assert taught(client) == {}


def test_a_request_that_comes_twice_is_done_once_also_by_another_process(photos: Path) -> None:
    def post(client: httpx.Client, path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
        headers = {"Idempotency-Key": key}
        answer = client.post(f"api/pictures/0/{path}", json=body, headers=headers)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    stroke = {"tool": "brush", "points": [[120, 200], [150, 200]], "radius": 8}
    with serving(photos) as (url, process), httpx.Client(base_url=url, timeout=60) as client:
        nut, other = (each["id"] for each in objects(client)[:2])
        requests: list[tuple[str, dict[str, Any], str]] = [
            ("decisions", {"decisions": [{"object": nut, "label": "nut"}]}, "one"),
            ("delete", {"objects": [other]}, "two"),
            ("outlines", stroke, "three"),
            ("finished", {"finished": True}, "four"),
        ]
        first = [post(client, *each) for each in requests]
        again = [post(client, *each) for each in requests]
        assert again[2]["made"] == first[2]["made"]
        assert len(first[2]["made"]) == 1
        process.kill()
        process.wait()
    with serving(photos) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        third = [post(client, *each) for each in requests]
        assert third[2]["made"] == first[2]["made"]
        assert len([each for each in objects(client) if each["drawn"]]) == 1
        undone = []
        while (done := client.post("api/undo", json={})).status_code == 200:
            undone.append(done.json()["title"])
        assert len(undone) == 4, undone
        # The same key may not bring back what was undone meanwhile.
        post(client, *requests[0])
        assert taught(client) == {}


def test_a_decision_about_a_picture_that_was_replaced_is_refused(photos: Path) -> None:
    with serving(photos) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        shown = client.get("api/pictures/0").json()
        stroke = {"tool": "brush", "points": [[120, 200], [150, 200]], "radius": 8}
        headers = {"If-Match": f'"{shown["digest"]}"'}
        assert client.post("api/pictures/0/outlines", json=stroke, headers=headers).is_success
        (photos / "0.png").write_bytes((photos / "1.png").read_bytes())
        refused = client.post("api/pictures/0/outlines", json=stroke, headers=headers)
        assert (refused.status_code, "another picture" in refused.json()["detail"]) == (412, True)
        assert not any(each["drawn"] for each in objects(client))


def test_groups_are_named_one_after_the_other(photos: Path) -> None:
    with serving(photos) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        client.get("api/pictures/0")
        while client.get("api/state").json()["surveyed"] < 2:
            time.sleep(0.2)
        # A page shows the groups as they were when it asked, and names one after the other.
        first, second = client.get("api/groups").json()["groups"][:2]
        for label, group in (("one", first), ("two", second)):
            decisions = [{**member, "label": label} for member in group["members"]]
            body, headers = {"decisions": decisions}, {"Idempotency-Key": label}
            for _ in range(2):
                answer = client.post("api/groups/decisions", json=body, headers=headers)
                assert answer.is_success, answer.text
            member = second["members"][0]
            place = f"api/pictures/{member['picture']}/objects/{member['object']}/thumbnail"
            assert client.get(place).is_success, "the page still shows it"
        assert {*labels(client)} == {"one", "two"}
        undone = [client.post("api/undo", json={}).status_code for _ in range(3)]
        assert undone == [200, 200, 409], "each was one change"


def test_the_keys_of_names_work_right_after_a_name_was_typed(photos: Path) -> None:
    with annotating(photos) as (page, client):
        page.click_nut(0)
        for label in ("nut", "date"):
            page.page.keyboard.type(label)
            page.page.keyboard.press("Enter")
            page.saved()
            page.click_nut(1)
        assert {*labels(client)} == {"nut", "date"}, "a new name replaces the one in the field"
        page.press("1")  # of the name that was given first
        page.saved()
        assert [*taught(client).values()] == ["nut", "nut"]
        # A name that is typed gives the focus back to the picture, and its keys.
        page.click_nut(2)
        for key in ("n", "e", "w", "Enter"):
            page.page.keyboard.press(key)
        assert page.page.evaluate("document.activeElement.id") == "shapes"
