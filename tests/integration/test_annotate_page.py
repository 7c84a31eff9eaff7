"""``sam-detect annotate`` as its users have it: a process, a socket, a browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from tests.browser import browser

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

NUTS = [(60, 60), (150, 70), (240, 60), (80, 160), (200, 170)]
TOKEN = "a-token-of-these-tests"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two pictures of five round nuts and a long one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        picture = np.full((230, 320, 3), (215, 220, 225), np.uint8)
        for x, y in NUTS:
            cv2.circle(picture, (x + 9 * number, y), 20, (60, 110, 180), -1, cv2.LINE_AA)
        cv2.ellipse(picture, ((290, 150), (24, 90), 0), (30, 50, 90), -1, cv2.LINE_AA)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    return folder


@contextmanager
def serving(photos: Path, *options: str, **environment: str) -> Iterator[tuple[str, Any]]:
    """The address of a page, and its process."""
    command = [sys.executable, "-m", "sam_detect", "annotate", str(photos), "--port", "0", "--json"]
    process = subprocess.Popen(
        [*command, "--segmenter", "naive", *options],
        env={**os.environ, "SAM_DETECT_HOME": str(photos.parent / "home"), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"], process
    finally:
        process.kill()
        process.wait()


def said(page: Any, text: str) -> None:
    """Waits until the page's line of state says this."""
    page.locator("#status").filter(has_text=re.compile(text)).wait_for(timeout=30_000)


def nut(page: Any, number: int, shift: int = 0) -> Any:
    """The outline about a nut that is clicked on: the smallest one around it."""
    x, y = NUTS[number]
    paths = page.locator("#picture path")
    boxes = paths.evaluate_all(
        "all => all.map(p => { const b = p.getBBox(); return [b.x, b.y, b.width, b.height]; })"
    )
    around = [
        (width * height, index)
        for index, (left, top, width, height) in enumerate(boxes)
        if left < x + shift < left + width and top < y < top + height and width * height > 900
    ]
    return paths.nth(min(around)[1])


def test_what_is_named_is_known_at_once_and_after_a_kill(photos: Path) -> None:
    with browser() as chromium:
        page = chromium.new_page()
        errors: list[str] = []
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        with serving(photos) as (url, process):
            page.goto(url)
            said(page, "0 named")
            nut(page, 0).click()
            nut(page, 1).click(modifiers=["Shift"])
            page.fill("#label", "<b>nut</b>")
            page.click("#accept")
            said(page, "5 named")
            assert nut(page, 4).get_attribute("aria-label").startswith("<b>nut</b>, ")
            assert nut(page, 0).get_attribute("aria-label").endswith("shown by you")
            nut(page, 4).hover()
            page.locator("#why figure img").first.wait_for()
            assert "<b>nut</b>" in page.locator("#why figcaption").first.inner_text()
            page.click("#next")
            said(page, "5 named")
            process.kill()
            process.wait()
        with serving(photos) as (url, _):
            page.goto(url)
            said(page, "5 named")
            page.click("#undo")
            said(page, "0 named")
            # By keyboard alone.
            nut(page, 2).focus()
            page.keyboard.press("Space")
            nut(page, 3).focus()
            page.keyboard.press("Shift+Space")
            page.focus("#label")
            page.keyboard.type("nut")
            page.keyboard.press("Enter")
            said(page, "5 named")
        assert errors == []


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
        wrong = client.post("api/pictures/0/decisions", json={"objects": [], "label": "nut"})
        assert (wrong.status_code, "objects" in wrong.json()["detail"]) == (422, True)
        gone = client.post("api/pictures/0/decisions", json={"objects": ["x"], "label": "nut"})
        assert (gone.status_code, "load the picture" in gone.json()["detail"]) == (404, True)
        large = client.post("api/undo", content=b" " * (2 << 20))
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
