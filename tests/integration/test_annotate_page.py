"""``sam-detect annotate`` as its users have it: a process, a socket, a browser."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.browser import browser
from tests.integration.page_harness import (
    ALL_SAVED_MS,
    NUTS,
    TOKEN,
    Page,
    annotating,
    labels,
    objects,
    serving,
    taught,
)

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")


def test_what_is_named_is_known_at_once_and_after_a_kill(photos: Path) -> None:
    with browser() as chromium:
        page = Page(chromium)
        with serving(photos) as (url, process):
            page.start(url)
            page.click_nut(0)
            page.click_nut(1, "Shift")
            page.name("<b>nut</b>")
            page.said(r"5 named \(2 by you\)")
            page.click_nut(4)
            page.page.locator("#why figure img").first.wait_for()
            assert "<b>nut</b>, " in page.page.locator("#why-title").inner_text()
            assert "<b>nut</b>" in page.page.locator("#why figcaption").first.inner_text()
            page.page.click("#next")
            page.said(r"5 named \(0 by you\)")
            process.kill()
            process.wait()
        with serving(photos) as (url, _):
            page.open(url)
            page.said("5 named")
            page.page.click("#undo")
            page.said("undone: ")
            page.page.reload()
            page.said("0 named")
            page.page.click("#redo")
            page.said("redone: ")
            page.page.reload()
            page.said("5 named")
        assert page.errors == []


def test_what_nothing_proposes_is_outlined_by_a_click_or_painted_and_named_by_one_key(
    photos: Path,
) -> None:
    with annotating(photos) as (page, _):
        page.click_nut(0)
        page.click_nut(1, "Shift")
        page.name("nut")
        page.said(r"5 named \(2 by you\)")
        for number, selected in ((2, "1 object"), (3, "2 objects")):
            page.click_nut(number, "Control")
            page.page.locator("#selected-count").filter(has_text=selected).wait_for()
        page.press("1")
        page.said(r"5 named \(4 by you\)")
        page.press("b")
        page.drag((20, 210), (40, 210))
        page.seen("#selected-count", "1 object")
        page.drag((120, 212), (140, 212), modifiers=("Shift",))
        page.seen("#selected-count", "2 objects")
        page.press("1")
        page.said(r"7 named \(6 by you\)")
        page.saved()


def test_accept_confirm_reject_and_delete(photos: Path) -> None:
    with annotating(photos) as (page, _):
        page.click_nut(0)
        page.click_nut(4, "Shift")
        page.name("nut")
        page.said(r"5 named \(2 by you\)")
        page.click_nut(1)
        page.press("Enter")
        page.said(r"5 named \(3 by you\)")
        page.click_nut(2)
        page.page.click("#reject")
        page.said("4 named")
        page.page.locator("#threshold").fill("10")
        page.page.click("#accept-all")
        page.said(r"4 named \(4 by you\)")
        page.click_nut(3)
        page.press("Delete")
        page.said(r"3 named \(3 by you\)")
        page.saved()
        # All of it is undone step by step, also after a reload.
        page.page.reload()
        page.said(r"3 named \(3 by you\)")
        for count in (4, 4, 5, 5, 0):
            page.press("Control+z")
            page.said("undone")
            page.page.reload()
            page.said(rf"^{count} named")
        assert page.page.locator("#undo").is_disabled()


def test_by_keyboard_alone(photos: Path) -> None:
    with annotating(photos) as (page, _):
        page.page.locator("#shapes").focus()
        spoken = page.page.locator("#spoken")
        for _ in range(2):
            page.page.keyboard.press("ArrowRight")
        page.page.keyboard.press("Space")
        spoken.filter(has_text=", selected").wait_for()
        page.page.keyboard.type("thing")
        page.page.keyboard.press("Enter")
        page.saved()
        page.said("by you")
        page.page.keyboard.press("Escape")
        page.page.keyboard.press("f")
        page.seen("#progress-text", "1 of 2")
        page.seen("#picture-name", "1.png")
        page.page.keyboard.press("?")
        assert page.page.locator("#help").is_visible()
        page.page.locator("[data-key=next]").click()
        page.page.keyboard.press("j")
        page.page.keyboard.press("Escape")
        page.page.locator("#help").wait_for(state="hidden")
        page.page.reload()
        page.said("named")
        page.press("p")
        page.seen("#picture-name", "0.png")
        page.said("named")
        page.press("j")
        page.seen("#picture-name", "1.png")


def test_outlines_are_drawn_and_mended(photos: Path) -> None:
    with annotating(photos) as (page, client):

        def drawn() -> list[dict[str, object]]:
            page.saved()
            return [each for each in objects(client) if each["drawn"]]

        page.page.click("[data-tool=brush]")
        page.drag((120, 200), (150, 200))
        assert [each["bbox_xywh"][2] > 25 for each in drawn()] == [True]
        page.name("stroke")
        assert [each["label"] for each in drawn()] == ["stroke"]
        # The eraser takes the half of it; the name stays with what is left.
        before = drawn()[0]["bbox_xywh"][2]
        page.page.click("[data-tool=select]")
        page.click(135, 200)
        page.page.click("[data-tool=erase]")
        page.drag((150, 190), (150, 212))
        shorter = drawn()[0]
        assert (shorter["label"], shorter["bbox_xywh"][2] < before - 2) == ("stroke", True)
        page.page.click("[data-tool=split]")
        page.drag((133, 180), (133, 225))
        assert len(drawn()) == 2
        page.page.click("[data-tool=select]")
        page.drag((100, 185), (170, 215), modifiers=("Shift",))
        page.page.click("[data-action=merge]")
        page.said("named")
        assert len(drawn()) == 1
        for left in (2, 1, 1, 1, 0):
            client.post("api/undo", json={})
            assert len(drawn()) == left
        # Clicks on a nut find its outline; it is kept when the user says so.
        page.page.reload()
        page.said("0 named")
        page.page.click("[data-tool=points]")
        page.click_nut(0)
        page.page.wait_for_timeout(500)
        assert drawn() == []
        page.press("Enter")
        kept = drawn()
        assert [each["bbox_xywh"] for each in kept] == [kept[0]["bbox_xywh"]]
        x, y, width, height = kept[0]["bbox_xywh"]
        assert abs(x + width / 2 - NUTS[0][0]) < 4
        assert 34 <= min(width, height) <= max(width, height) <= 46
        # Its vertices can be moved.
        page.page.click("[data-tool=reshape]")
        page.page.wait_for_timeout(500)
        page.drag((x + width, y + height / 2), (x + width + 30, y + height / 2))
        page.press("Enter")
        assert drawn()[0]["bbox_xywh"][2] > width + 15


def test_two_windows_on_one_library(photos: Path) -> None:
    with browser() as chromium, serving(photos) as (url, _):
        first, second = Page(chromium), Page(chromium)
        for page in (first, second):
            page.start(url)
        first.click_nut(0)
        first.click_nut(1, "Shift")
        first.name("nut")
        second.said("5 named")
        second.click_nut(0)
        second.name("date")
        first.said(r"named \(2 by you\)")
        first.seen("#label-keys", "date")
        assert first.errors + second.errors == []


def test_what_was_decided_while_the_server_was_away_is_sent_later(photos: Path) -> None:
    with browser() as chromium:
        page = Page(chromium)
        with serving(photos) as (url, process):
            page.start(url)
            process.kill()
            process.wait()
            page.click_nut(0)
            page.decide("nut")
            page.seen("#saved", "not saved yet")
        port = str(httpx.URL(url).port)
        with serving(photos, "--port", port) as (url, _), httpx.Client(base_url=url) as client:
            page.saved(ALL_SAVED_MS)
            assert labels(client) == {"nut": 1}


def test_groups_are_named_at_once(photos: Path) -> None:
    with annotating(photos) as (page, client):
        page.page.click("#show-groups")
        group = page.page.locator(".objects-group").filter(has=page.page.locator(".members button"))
        group.first.wait_for()
        page.page.locator("#groups p").filter(has_text="of 2 pictures").wait_for(timeout=60_000)
        sizes = [each["members"] for each in client.get("api/groups").json()["groups"]]
        largest = sizes[0]
        first = page.page.locator(".objects-group").first
        first.locator(".members button").first.click()
        first.locator("input").fill("round")
        first.locator("button[type=submit]").click()
        page.saved()
        assert labels(client) == {"round": len(largest) - 1}
        assert client.post("api/undo", json={}).json()["title"].startswith("round")
        assert labels(client) == {}


def test_pictures_that_come_go_and_cannot_be_read(photos: Path) -> None:
    (photos / "2.png").write_bytes(b"no picture")
    with annotating(photos, refused=(422,)) as (page, client):
        page.click_nut(0)
        page.name("nut")
        page.page.click("#next")
        page.said("named")
        page.page.click("#next")
        page.seen("#problem", "2.png")
        page.page.click("#previous")
        page.said("named")
        # Another picture under the same name: what was named in the old one does not show in it.
        (photos / "0.png").write_bytes((photos / "1.png").read_bytes())
        (photos / "1.png").unlink()
        (photos / "0.png").rename(photos / "3.png")
        found = client.get("api/pictures").json()
        assert [each["missing"] for each in found["pictures"]] == [True, True, False, False]
        assert found["order"] == [2, 3]
        gone = client.get("api/pictures/0")
        assert (gone.status_code, "no longer there" in gone.json()["detail"]) == (422, True)
        assert taught(client, 3) == {}
        # What was named in a picture that is gone can still be undone.
        assert client.post("api/undo", json={}).status_code == 200


def test_only_who_may_ask_is_answered(photos: Path) -> None:
    with serving(photos) as (url, _), httpx.Client(base_url=url) as client:
        assert client.get("api/pictures").status_code == 200
        elsewhere = client.get("api/pictures", headers={"Host": "rebound.example:8000"})
        assert elsewhere.status_code == 421
        assert elsewhere.headers["content-type"] == "application/problem+json"
        foreign = client.post("api/undo", headers={"Origin": "https://elsewhere.example"})
        assert foreign.status_code == 403
        assert "default-src 'self'" in client.get("").headers["content-security-policy"]
        assert client.get("../../etc/passwd").status_code == 404
        assert client.get("api/pictures/7").status_code == 404
        wrong = client.post("api/pictures/0/decisions", json={"decisions": []})
        assert (wrong.status_code, "decisions" in wrong.json()["detail"]) == (422, True)
        gone = client.post(
            "api/pictures/0/decisions", json={"decisions": [{"object": "x", "label": "nut"}]}
        )
        assert (gone.status_code, "load the picture" in gone.json()["detail"]) == (404, True)
        large = client.post("api/undo", content=b" " * (5 << 20))
        assert large.status_code == 413
        endless = client.post("api/undo", content=(b" " for _ in range(3)))
        assert endless.status_code == 411, "its length would be known too late"
        for host in ("[::1", "", "localhost.example"):
            assert client.get("api/pictures", headers={"Host": host}).status_code in (400, 421)
        missing = client.get("nothing")
        assert missing.headers["content-type"] == "application/problem+json"
        assert client.put("api/undo").status_code == 405
    with serving(photos, SAM_DETECT_TOKEN=TOKEN) as (url, _), httpx.Client(base_url=url) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
            assert client.get("api/pictures", headers=headers).status_code == 401
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("api/pictures", headers=right).status_code == 200
        assert client.get("").status_code == 200, "the page itself says nothing"


@pytest.mark.parametrize(
    ("options", "environment", "words"),
    [
        (("--host", "0.0.0.0"), {}, "need a token"),
        (("--host", "0.0.0.0"), {"SAM_DETECT_TOKEN": "short"}, "16 characters"),
        (("--host", "no.such.host.invalid"), {"SAM_DETECT_TOKEN": TOKEN}, "cannot be listened at"),
    ],
)
def test_an_address_that_cannot_be_served_is_said(
    photos: Path, options: tuple[str, ...], environment: dict[str, str], words: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sam_detect", "annotate", str(photos), "--port", "0", *options],
        env={**os.environ, "SAM_DETECT_HOME": str(photos.parent / "home"), **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_said(photos: Path) -> None:
    with serving(photos) as (url, _):
        port = str(httpx.URL(url).port)
        done = subprocess.run(
            [sys.executable, "-m", "sam_detect", "annotate", str(photos), "--port", port],
            env={**os.environ, "SAM_DETECT_HOME": str(photos.parent / "home")},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert f"port {port} cannot be listened at" in done.stderr
    assert "another --port" in done.stderr
