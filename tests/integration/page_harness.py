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
import numpy as np

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

    def said(self, text: str) -> None:
        """Waits until the page's line of state says this."""
        self.page.locator("#status").filter(has_text=re.compile(text)).wait_for(timeout=60_000)

    def saved(self) -> None:
        """Waits until the page says that all is saved."""
        self.page.locator("#saved").filter(has_text="all saved").wait_for(timeout=30_000)

    def place(
        self, x: float, y: float, size: tuple[int, int] = (WIDTH, HEIGHT)
    ) -> dict[str, float]:
        """Where a point of the picture is in the browser, as long as the whole picture is shown."""
        # The picture is fitted to its frame when that has its final size.
        self.page.wait_for_timeout(350)
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

    def name(self, label: str) -> None:
        self.page.fill("#label", label)
        self.page.click("#accept")
        self.saved()

    def press(self, key: str) -> None:
        """A key, in the picture."""
        self.page.locator("#shapes").focus()
        self.page.keyboard.press(key)
