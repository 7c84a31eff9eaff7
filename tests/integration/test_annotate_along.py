"""An object that nothing proposes is outlined by a line from one of its ends to the other."""

from __future__ import annotations

from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from tests.browser import browser
from tests.integration.page_harness import NUTS, Page, draw_photos, serving

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

LEFT, RIGHT = (120, 200), (160, 200)
"""Middles of two discs that touch: nothing proposes either of them alone."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = draw_photos(tmp_path / "photos", count=1)
    picture = cv2.imread(str(folder / "0.png"))
    for x, y in (LEFT, RIGHT):
        cv2.ellipse(picture, ((x, y), (44, 30), 0), (60, 110, 180), -1, cv2.LINE_AA)
    cv2.imwrite(str(folder / "0.png"), picture)
    return folder


def test_ctrl_drags_outline_objects_that_one_key_names(photos: Path) -> None:
    with browser() as chromium, serving(photos) as (url, _), httpx.Client(base_url=url) as client:
        page = Page(chromium)
        page.open(url)
        page.said("0 named")
        page.click_nut(0)
        page.name("nut")
        selected = page.page.locator("#selected-count")
        for number, (x, y) in enumerate((LEFT, RIGHT), 1):
            page.drag((x - 22, y), (x + 21, y), modifiers=("Control",))
            selected.filter(has_text=f"{number} object").wait_for()
        page.press("1")
        page.said(r"3 by you")
        page.saved()
        found = client.get("api/pictures/0").json()["objects"]
        boxes = sorted(each["bbox_xywh"] for each in found if each["taught"])
        np.testing.assert_allclose(boxes[1], (98, 185, 44, 30), atol=4)
        np.testing.assert_allclose(boxes[2], (138, 185, 44, 30), atol=4)
        # One undo takes the names back, and the next ones the outlines.
        assert client.post("api/undo", json={}).json()["title"] == "nut, 2 objects"
        assert client.post("api/undo", json={}).json()["title"] == "draw"
        # Where it hardly moves, it is a click: the picture does not move either way.
        page.page.reload()
        page.said("1 by you")
        x, y = NUTS[2]
        page.drag((x, y), (x + 0.5, y), modifiers=("Control",))
        selected.filter(has_text="1 object").wait_for()
        assert page.errors == []


def test_a_line_is_shown_before_it_is_kept_and_refused_where_it_says_nothing(photos: Path) -> None:
    (x, y), outlines = NUTS[1], "api/pictures/0/outlines"
    with serving(photos) as (url, _), httpx.Client(base_url=url) as client:
        line = {"tool": "along", "points": [[x - 20, y], [x + 20, y]]}
        shown = client.post(outlines, json={**line, "keep": False})
        assert shown.status_code == 200
        assert "made" not in shown.json()
        kept = client.post(outlines, json={**line, "label": "nut"}).json()
        assert [each["label"] for each in kept["objects"] if each["id"] in kept["made"]] == ["nut"]
        # An end beyond the picture lies on its border.
        beyond = {"tool": "along", "points": [[280, -1e9], [1e9, 150]], "keep": False}
        assert client.post(outlines, json=beyond).status_code == 200
        for points in ([], [[x, y]]):
            refused = client.post(outlines, json={"tool": "along", "points": points})
            assert (refused.status_code, "draw a line" in refused.json()["detail"]) == (422, True)
