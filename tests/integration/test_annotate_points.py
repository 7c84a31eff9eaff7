"""The tool for points and boxes: nothing that was begun is dropped without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from tests.integration.page_harness import NUTS, annotating, labels, objects, serving

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")


def around(number: int, slack: int = 4) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two corners of a box around a nut."""
    (x, y), far = NUTS[number], 20 + slack
    return (x - far, y - far), (x + far, y + far)


def test_all_boxes_are_kept_by_enter_under_the_name_that_is_typed(photos: Path) -> None:
    with annotating(photos) as (page, client):

        def kept() -> list[dict[str, Any]]:
            page.saved()
            return [each for each in objects(client) if each["drawn"]]

        shown: list[str] = []
        page.page.on(
            "response", lambda r: shown.append(r.url) if r.url.endswith("/outlines") else None
        )

        def wait(count: int) -> None:
            for _ in range(200):
                if len(shown) >= count:
                    return
                page.page.wait_for_timeout(50)
            raise AssertionError(f"{len(shown)} of {count} outlines were shown")

        page.press("c")
        page.drag(*around(0))
        page.drag(*around(1))  # a second box is a second object
        page.drag(*around(2), modifiers=("Shift",))
        page.drag(*around(3))
        page.drag(*around(3, 2))  # ... but not the same box, drawn better
        page.click_nut(4, "Shift")
        wait(6)
        assert kept() == []
        page.page.keyboard.type("Mutter")
        page.page.keyboard.press("Enter")
        page.seen("#label-keys", "Mutter")
        assert labels(client) == {"Mutter": 5}
        assert len(kept()) == 5
        assert page.page.input_value("#label") == ""
        # Enter alone keeps without a name; Esc, Undo and Delete take back the last box or click.
        for key in ("Escape", "Control+z", "Delete"):
            page.drag((270, 100), (310, 200))
            page.drag(*around(0))
            page.page.keyboard.press(key)
        assert page.page.locator("[data-tool=points][aria-pressed=true]").count() == 1
        page.page.keyboard.press("Enter")
        page.said("by you")
        assert len(kept()) == 6
        assert labels(client) == {"Mutter": 5}
        # Neither another tool nor another picture drops what was begun.
        for y, leave in ((100, "[data-tool=brush]"), (190, "#next")):
            page.page.click("[data-tool=points]")
            page.drag((10, y), (50, y + 30))
            page.page.click(leave)
            page.saved()
        assert len([each for each in objects(client) if each["drawn"]]) == 8


def test_a_mask_does_not_leave_its_box(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    picture = np.full((240, 320, 3), (215, 220, 225), np.uint8)
    cv2.rectangle(picture, (60, 60), (200, 160), (60, 110, 180), -1)
    cv2.circle(picture, (250, 60), 30, (40, 60, 110), -1)
    cv2.imwrite(str(photos / "0.png"), picture)

    def box_of(client: httpx.Client, **prompt: Any) -> tuple[float, ...]:
        edit = {"tool": "clicks", "prompts": [prompt], "keep": False}
        answer = client.post("api/pictures/0/outlines", json=edit)
        assert answer.status_code == 200, answer.text
        points = np.concatenate([np.array(ring) for ring in answer.json()["rings"]])
        return (*points.min(axis=0), *points.max(axis=0))

    with serving(photos) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        # Boxes somewhat too small, on one side or on all of them, also with clicks in them.
        for x, y, w, h in ((60, 60, 118, 101), (75, 70, 110, 80), (225, 30, 40, 60)):
            inside: dict[str, Any] = {"points": [[x + w / 2, y + h / 2]], "positive": [True]}
            for more in ({}, inside):
                x0, y0, x1, y1 = box_of(client, box=[x, y, w, h], **more)
                assert x0 >= x
                assert y0 >= y
                assert x1 <= x + w
                assert y1 <= y + h
                assert (x1 - x0) * (y1 - y0) > 0.5 * w * h
        # A click outside says that the object goes on there.
        wider = box_of(client, box=[60, 60, 118, 101], points=[[190, 110]], positive=[True])
        assert wider[2] > 185
