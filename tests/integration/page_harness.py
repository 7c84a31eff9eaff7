"""Drives the annotation page as its users do: a process, a socket, a browser."""

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

from tests.browser import browser

ALL_SAVED_MS = 20_000
"""Within this time the page has sent what it kept while the server was away."""
TOKEN = "a-token-of-these-tests"
WIDTH, HEIGHT = 320, 230
NUTS = [(60, 60), (150, 70), (240, 60), (80, 160), (200, 170)]
SHIFT = 9
"""The nuts of each picture lie so many pixels further to the right than those of the last one."""


def draw_photos(folder: Path, count: int = 2) -> Path:
    """Pictures of five round nuts and a long one."""
    folder.mkdir()
    for number in range(count):
        picture = np.full((HEIGHT, WIDTH, 3), (215, 220, 225), np.uint8)
        for x, y in NUTS:
            cv2.circle(picture, (x + SHIFT * number, y), 20, (60, 110, 180), -1, cv2.LINE_AA)
        cv2.ellipse(picture, ((290, 150), (24, 90), 0), (30, 50, 90), -1, cv2.LINE_AA)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    return folder


@contextmanager
def serving(photos: Path, *options: str, **environment: str) -> Iterator[tuple[str, Any]]:
    """The address of a page, and its process."""
    command = [sys.executable, "-m", "sam_detect", "annotate", str(photos), "--json"]
    if "--port" not in options:
        command += ["--port", "0"]
    log = photos.parent / "server.log"
    with log.open("a") as stderr:
        process = subprocess.Popen(
            [*command, "--segmenter", "naive", *options],
            env={**os.environ, "SAM_DETECT_HOME": str(photos.parent / "home"), **environment},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"], process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        # pytest shows it where the test fails.
        print(log.read_text(), file=sys.stderr)


@contextmanager
def annotating(
    photos: Path,
    *options: str,
    size: tuple[int, int] = (1280, 720),
    scheme: str = "light",
    refused: tuple[int, ...] = (),
) -> Iterator[tuple[Page, httpx.Client]]:
    """A page that shows the first picture, in which nothing is named yet, and a client of its
    server. No script of the page may fail.

    Args:
        refused: statuses with which the server may refuse what the page asks for.
    """
    with (
        browser() as chromium,
        serving(photos, *options) as (url, _),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        page = Page(chromium, size)
        page.page.emulate_media(color_scheme=scheme)
        page.start(url)
        yield page, client
        expected = tuple(f"status of {status}" for status in refused)
        wrong = [e for e in page.errors if not any(each in e for each in expected)]
        assert wrong == [], wrong


def objects(client: httpx.Client, picture: int = 0) -> list[dict[str, Any]]:
    """The objects of a picture, as the page is told of them."""
    found: list[dict[str, Any]] = client.get(f"api/pictures/{picture}").json()["objects"]
    return found


def taught(client: httpx.Client, picture: int = 0) -> dict[str, str]:
    """The objects of a picture that a user named: their ids and names."""
    return {each["id"]: each["label"] for each in objects(client, picture) if each["taught"]}


def labels(client: httpx.Client) -> dict[str, int]:
    """The names that the library knows, and the number of examples of each."""
    found = client.get("api/labels").json()["labels"]
    return {each["label"]: each["examples"] for each in found}


FITTED = """() => {
  const element = document.getElementById("viewer");
  const shown = OpenSeadragon.getViewer(element);
  if (!shown.isOpen()) return false;
  const { x, y } = shown.viewport.getContainerSize();
  const seen = shown.viewport.getBounds(true), whole = shown.viewport.getHomeBounds();
  const off = ["x", "y", "width", "height"].map((each) => Math.abs(seen[each] - whole[each]));
  const canvas = document.getElementById("shapes");
  return x === element.clientWidth && y === element.clientHeight && Math.max(...off) < 0.01
    && canvas.width === Math.round(x * devicePixelRatio);
}"""
"""Whether the frame of the picture has its final size, and all of the picture is shown in it, to
one part in a hundred."""


class Page:
    """The page in a browser.

    Args:
        chromium: a started browser.
        size: of its window, in pixels.
        beside: another page, with which it shares what the browser keeps.
    """

    def __init__(
        self, chromium: Any, size: tuple[int, int] = (1280, 720), *, beside: Page | None = None
    ) -> None:
        if beside is None:
            context = chromium.new_context(viewport={"width": size[0], "height": size[1]})
        else:
            context = beside.page.context
        self.page = context.new_page()
        self.errors: list[str] = []
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _note(self, message: Any) -> None:
        # What a browser says of a server that was killed.
        away = ("ERR_CONNECTION", "ERR_EMPTY", "Tile %s failed to load")
        # An example may be forgotten while its picture is on the way.
        gone = "404" in message.text and message.location["url"].endswith("/thumbnail")
        if message.type == "error" and not gone and not any(a in message.text for a in away):
            self.errors.append(message.text)

    def open(self, url: str) -> None:
        self.page.goto(url)

    def start(self, url: str) -> None:
        """Opens the page of a server whose library is empty, and waits for the first objects."""
        self.open(url)
        self.said("0 named")

    def said(self, text: str) -> None:
        """Waits until the page's line of state says this."""
        self.page.locator("#status").filter(has_text=re.compile(text)).wait_for(timeout=60_000)

    def saved(self, timeout: int = 30_000) -> None:
        """Waits until the page says that all is saved; `timeout` is in milliseconds."""
        self.page.locator("#saved").filter(has_text="all saved").wait_for(timeout=timeout)

    def waiting(self, count: int) -> None:
        """Waits until the page says that so much is not saved yet."""
        self.page.locator("#saved").filter(has_text=f"{count} not saved yet").wait_for()

    def seen(self, selector: str, text: str) -> None:
        """Waits until an element of the page has this text in it."""
        self.page.locator(selector).filter(has_text=text).wait_for()

    def place(
        self, x: float, y: float, size: tuple[int, int] = (WIDTH, HEIGHT)
    ) -> dict[str, float]:
        """Where a point of the picture is in the browser, when the whole picture is shown."""
        self.page.wait_for_function(FITTED)
        box = self.page.locator("#shapes").bounding_box()
        scale = min(box["width"] / size[0], box["height"] / size[1])
        left = box["x"] + (box["width"] - scale * size[0]) / 2
        top = box["y"] + (box["height"] - scale * size[1]) / 2
        return {"x": left + scale * x, "y": top + scale * y}

    def click(self, x: float, y: float, *modifiers: str) -> None:
        place = self.place(x, y)
        for key in modifiers:
            self.page.keyboard.down(key)
        self.page.mouse.click(place["x"], place["y"])
        for key in modifiers:
            self.page.keyboard.up(key)

    def click_nut(self, number: int, *modifiers: str, picture: int = 0) -> None:
        x, y = NUTS[number]
        self.click(x + SHIFT * picture, y, *modifiers)

    def drag(self, *points: tuple[float, float], modifiers: tuple[str, ...] = ()) -> None:
        places = [self.place(x, y) for x, y in points]
        self.page.mouse.move(places[0]["x"], places[0]["y"])
        for key in modifiers:
            self.page.keyboard.down(key)
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(place["x"], place["y"], steps=6)
        self.page.mouse.up()
        for key in modifiers:
            self.page.keyboard.up(key)

    def decide(self, label: str) -> None:
        """Names what is selected."""
        self.page.fill("#label", label)
        self.page.click("#accept")

    def name(self, label: str) -> None:
        """Names what is selected, and waits until that is saved."""
        self.decide(label)
        self.saved()

    def press(self, key: str) -> None:
        """A key, in the picture."""
        self.page.locator("#shapes").focus()
        self.page.keyboard.press(key)
