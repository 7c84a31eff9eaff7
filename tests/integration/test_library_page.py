"""The library page as its users have it: a process, a socket, a browser."""

from __future__ import annotations

import os
import re
import shutil
import socket
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
from tests.integration.page_harness import TOKEN, serving

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

HOSTILE = "<img src=x onerror=alert(1)>"


def learn(
    home: Path, picture: Path, label: str, *places: tuple[int, int], negative: bool = False
) -> None:
    """Has another process learn nuts and leaves at these places."""
    arguments = [f"--box={x - 20},{y - 20},40,40" for x, y in places]
    library(home, "learn", str(picture), "--label", label, *arguments, *["--negative"] * negative)


def library(home: Path, *arguments: str) -> None:
    """Runs a command of sam-detect on the library."""
    subprocess.run(
        [sys.executable, "-m", "sam_detect", *arguments],
        env={**os.environ, "SAM_DETECT_HOME": str(home)}, check=True, timeout=120,
        capture_output=True,
    )  # fmt: skip


PLACES = [(60, 60), (150, 70), (240, 60), (80, 160), (200, 170)]


@pytest.fixture(scope="module")
def taught_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, of five brown and of five green discs, and a library of both."""
    together = tmp_path_factory.mktemp("taught")
    folder, home = together / "photos", together / "home"
    folder.mkdir()
    for number, colour in enumerate([(60, 110, 180), (70, 170, 60)]):
        picture = np.full((230, 320, 3), (215, 220, 225), np.uint8)
        for place, (x, y) in enumerate(PLACES):
            shade = tuple(each + 4 * place for each in colour)
            cv2.circle(picture, (x, y), 20 - place, shade, -1, cv2.LINE_AA)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    learn(home, folder / "0.png", "nut", *PLACES)
    learn(home, folder / "1.png", "leaf", *PLACES[:4])
    learn(home, folder / "1.png", "nut", *PLACES[4:])
    learn(home, folder / "1.png", "nut", PLACES[0], negative=True)
    return together


@pytest.fixture
def photos(taught_photos: Path, tmp_path: Path) -> Path:
    """A copy of the pictures, with a copy of the library: learnt once for all tests."""
    shutil.copytree(taught_photos, tmp_path, dirs_exist_ok=True)
    return tmp_path / "photos"


def announced(url: str, path: str, size: int) -> int:
    """The status that answers the headers of a request with a body of so many bytes."""
    place = httpx.URL(url)
    with socket.create_connection((place.host, place.port or 80), timeout=30) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: {place.host}\r\nContent-Length: {size}\r\n\r\n"
        connection.sendall(head.encode())
        return int(connection.recv(100).split()[1])


@contextmanager
def opened(chromium: Any, url: str, **options: Any) -> Iterator[Any]:
    """The library page, of which no script may fail."""
    options.setdefault("viewport", {"width": 1280, "height": 720})
    context = chromium.new_context(accept_downloads=True, **options)
    page, errors = context.new_page(), list[str]()

    def noted(message: Any) -> None:
        # Chromium reports each answer that refuses something; the page says these itself.
        if message.type == "error" and "status of 409" not in message.text:
            errors.append(message.text)

    page.on("console", noted)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
    page.goto(f"{url}library")
    page.locator("#label-list button").first.wait_for(timeout=30_000)
    try:
        yield page
    finally:
        context.close()
    assert errors == []


def said(page: Any, text: str) -> None:
    page.locator("#status").filter(has_text=re.compile(text)).wait_for(timeout=30_000)


def labels(page: Any) -> list[str]:
    """The labels with their counts, as the list shows them."""
    texts = page.locator("#label-list button").all_inner_texts()
    return [" ".join(text.split()[1:]) for text in texts]


def show(page: Any, label: str) -> None:
    page.locator("#label-list button", has_text=label).first.click()
    page.locator("#label-name", has_text=label).wait_for()


def test_labels_are_renamed_merged_and_removed_and_all_is_undone(photos: Path) -> None:
    with browser() as chromium:
        with serving(photos) as (url, process), opened(chromium, url) as page:
            assert labels(page) == ["leaf 4", "nut 6, 1 not"]
            page.fill("#new-label", "typed for the leaf")
            show(page, "nut")
            assert page.input_value("#new-label") == ""
            assert "looks like leaf" in page.locator("#grid [role=option]").first.inner_text()
            page.fill("#new-label", "walnut")
            page.click("#rename")
            said(page, "6 examples|7 examples")
            assert labels(page) == ["leaf 4", "walnut 6, 1 not"]
            page.fill("#new-label", "leaf")
            assert page.inner_text("#rename") == "Merge"
            page.click("#rename")
            said(page, "now have the label leaf; 1 example that said it is not leaf removed")
            assert labels(page) == ["leaf 10"]
            page.click("#remove-label")
            said(page, "removed leaf: 10 examples")
            assert page.locator("#empty").is_visible()
            assert labels(page) == []
            process.kill()
            process.wait()
        with serving(photos) as (url, _), httpx.Client(base_url=url) as client:
            client.post("api/library/undo", json={}).raise_for_status()
            with opened(chromium, url) as page:
                assert labels(page) == ["leaf 10"]
                page.click("#undo")
                said(page, "undid merge")
                assert labels(page) == ["leaf 4", "walnut 6, 1 not"]
                page.reload()
                page.locator("#undo", has_text="Undo rename").click()
                said(page, "undid rename")
                assert labels(page) == ["leaf 4", "nut 6, 1 not"]
                assert page.locator("#undo").is_disabled()


def test_examples_are_chosen_by_mouse_and_keyboard_moved_and_removed(photos: Path) -> None:
    with browser() as chromium, serving(photos) as (url, _), opened(chromium, url) as page:
        show(page, "nut")
        tiles = page.locator("#grid [role=option]")
        tiles.nth(1).click()
        tiles.nth(3).click(modifiers=["Shift"])
        assert page.inner_text("#selected-count") == "3 selected"
        page.click("#select-none")
        tiles.nth(0).focus()
        page.keyboard.press("Space")
        page.fill("#move-label", "leaf")
        page.keyboard.press("Enter")
        said(page, "moved 1 example from nut to leaf")
        assert labels(page) == ["leaf 5", "nut 5, 1 not"]
        tiles.nth(0).focus()
        for key in ("ArrowRight", "Space", "Shift+ArrowRight", "ArrowDown", "Home", "End"):
            page.keyboard.press(key)
        assert page.inner_text("#selected-count") == "2 selected"
        assert page.evaluate("document.activeElement.dataset.id") == tiles.last.get_attribute(
            "data-id"
        )
        page.click("#remove")
        said(page, "removed 2 examples")
        assert labels(page) == ["leaf 5", "nut 3, 1 not"]
        page.click("#show-negatives")
        page.locator("#grid[aria-label='What is not nut']").wait_for()
        assert tiles.count() == 1
        page.click("#undo")
        said(page, "undid remove 2")
        page.click("#undo")
        said(page, "undid move 1")
        assert labels(page) == ["leaf 4", "nut 6, 1 not"]
        page.get_by_role("button", name=re.compile("Undo batch: learnt not nut")).click()
        said(page, "took back the batch")
        assert labels(page) == ["leaf 4", "nut 6"]
        page.click("#undo")
        said(page, "undid undo of a learning batch")
        assert labels(page) == ["leaf 4", "nut 6, 1 not"]


def test_what_another_process_changed_meanwhile_is_said(photos: Path) -> None:
    home = photos.parent / "home"
    with browser() as chromium, serving(photos) as (url, _), opened(chromium, url) as page:
        show(page, "leaf")
        page.locator("#grid [role=option]").first.click()
        library(home, "library", "rename", "leaf", "lamina")
        page.click("#remove")
        said(page, "1 of 1 have another label meanwhile; nothing was changed")
        page.locator("#label-list button", has_text="lamina").wait_for()
        assert labels(page) == ["lamina 4", "nut 6, 1 not"]


def test_an_export_is_imported_into_an_empty_library(photos: Path, tmp_path: Path) -> None:
    with browser() as chromium:
        with serving(photos) as (url, _), opened(chromium, url) as page:
            with page.expect_download() as waiting:
                page.click("#export-library")
            waiting.value.save_as(file := tmp_path / "export.zip")
            page.select_option("#format", "coco")
            with page.expect_download() as waiting:
                page.click("#export-annotations")
            assert waiting.value.suggested_filename.endswith("coco.zip")
            (tmp_path / "bad.zip").write_bytes(b"PK no zip")
            with page.expect_response(lambda answer: answer.status == 409):
                page.set_input_files("#import-file", tmp_path / "bad.zip")
        with serving(photos, "--library", "empty") as (url, _):
            page = chromium.new_page()
            page.goto(f"{url}library")
            page.locator("#empty").wait_for()
            page.set_input_files("#import-file", file)
            page.locator("#plan-text", has_text="leaf (4), nut (6)").wait_for()
            assert "11 examples would be added, 0 are here" in page.inner_text("#plan-text")
            assert labels(page) == []
            page.click("#import")
            said(page, "imported 11 examples; the library has 11")
            assert labels(page) == ["leaf 4", "nut 6, 1 not"]


def test_a_click_on_the_map_selects_the_example(photos: Path) -> None:
    with browser() as chromium, serving(photos) as (url, _), opened(chromium, url) as page:
        answer = httpx.get(f"{url}api/library/map").json()
        places = np.array([answer["x"], answer["y"]]).T
        far = np.abs(places[:, None] - places[None]).max(axis=2) + 9 * np.eye(len(places))
        # One that no other point is near.
        row = max(
            (i for i, label in enumerate(answer["labels"]) if label == "nut"),
            key=lambda i: far[i].min(),
        )
        page.locator("#map[aria-busy=false]").wait_for()
        side = page.evaluate("document.getElementById('map').clientWidth")
        half = side / 2
        x = half + (half - 12) * answer["x"][row]
        y = half - (half - 12) * answer["y"][row]
        page.locator("#map").click(position={"x": x + 1, "y": y + 1})
        said(page, "selected an example of nut")
        chosen = page.locator("#grid [aria-selected=true]")
        assert chosen.count() == 1
        assert chosen.get_attribute("data-id") == answer["ids"][row]
        page.locator("#map").focus()
        for key in ("ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "Enter"):
            page.keyboard.press(key)
        said(page, "selected an example of")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 720), (820, 1180)])
def test_nothing_keeps_anybody_from_using_it(
    photos: Path, scheme: str, size: tuple[int, int]
) -> None:
    axe_module = pytest.importorskip("axe_playwright_python.sync_playwright")
    width, height = size
    with (
        browser() as chromium,
        serving(photos) as (url, _),
        opened(
            chromium, url, color_scheme=scheme, viewport={"width": width, "height": height}
        ) as page,
    ):
        show(page, "nut")
        page.locator("#grid [role=option]").nth(1).click()
        rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
        found = axe_module.Axe().run(page, options=rules)
        assert found.violations_count == 0, found.generate_report()
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(overflow) == 0


def test_a_hostile_label_is_shown_as_text(photos: Path) -> None:
    with browser() as chromium, serving(photos) as (url, _), opened(chromium, url) as page:
        show(page, "nut")
        page.fill("#new-label", HOSTILE)
        page.click("#rename")
        said(page, "now have the label <img")
        assert page.inner_text("#label-name") == HOSTILE
        assert page.locator("main img:not(#grid img)").count() == 0
        assert HOSTILE in page.inner_text("#log")
        page.reload()
        page.locator("#label-list button", has_text=HOSTILE).wait_for()
        assert page.locator("main img:not(#grid img)").count() == 0


def test_requests_are_checked_and_failures_are_problems(photos: Path) -> None:
    with serving(photos) as (url, _), httpx.Client(base_url=url) as client:
        for path, status in (
            ("api/library/examples?label=nut&limit=101", 422),
            ("api/library/examples?label=pear", 404),
            ("api/library/examples?label=nut&offset=-1", 422),
            ("api/library/examples/x/page", 404),
            ("api/library/export?name=pickle", 404),
        ):
            answer = client.get(path)
            assert answer.status_code == status, path
            assert answer.headers["content-type"] == "application/problem+json"
        for path, body, status in (
            ("rename", {"label": "nut", "new": "leaf"}, 409),
            ("rename", {"label": "nut"}, 422),
            ("move", {"ids": [], "label": "nut"}, 422),
            ("remove", {"ids": ["x"]}, 409),
            ("undo", {}, 404),
            ("uploads/x", {}, 404),
        ):
            answer = client.post(f"api/library/{path}", json=body)
            assert answer.status_code == status, path
        assert announced(url, "/api/library/rename", 2 << 20) == 413
        assert announced(url, "/api/library/uploads", 3 << 30) == 413
        hostile = client.post("api/library/uploads", content=b"PK" + bytes(2 << 20))
        assert (hostile.status_code, hostile.json()["detail"][:8]) == (409, "the file")
        assert "script-src" not in client.get("library").text
        assert "default-src 'self'" in client.get("library").headers["content-security-policy"]
    with serving(photos, SAM_DETECT_TOKEN=TOKEN) as (url, _), httpx.Client(base_url=url) as client:
        assert client.get("api/library").status_code == 401
        assert client.get("library").status_code == 200
