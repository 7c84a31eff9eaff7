"""``sam-detect video --page`` as its users have it: a process, a socket, a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser import browser
from tests.drawn_scene import disc_xy, picture, square_xy
from tests.video_files import write_video

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")
client = pytest.importorskip("websockets.sync.client")

TOKEN = "a-token-of-these-tests"
SIZE = (160, 120)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of a disc and a square that do not move."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_video(path, (picture(0) for _ in range(1500)))


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("short") / "short.mp4"
    return write_video(path, (picture(0) for _ in range(12)))


@contextmanager
def watching(
    clip: Path, home: Path, *options: str, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of the page, and its process."""
    line = [sys.executable, "-m", "sam_detect", "video", str(clip), "--page", "--json"]
    line += ["--segmenter", "naive", "--embedder", "appearance", *options]
    line += [] if "--port" in options else ["--port", "0"]
    home.mkdir(exist_ok=True)
    with (home / "frames.jsonl").open("w") as out:
        running = subprocess.Popen(
            line, env={**os.environ, "SAM_DETECT_HOME": str(home), **environment},
            stdout=out, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while not (said := (home / "frames.jsonl").read_text().partition("\n"))[1]:
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)
        yield json.loads(said[0])["url"], running
    finally:
        running.kill()
        running.communicate()


class Page:
    """The page in a browser."""

    def __init__(self, chromium: Any, url: str, size: tuple[int, int] = (1280, 720)) -> None:
        self.page = chromium.new_page(viewport={"width": size[0], "height": size[1]})
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._note)
        self.page.goto(url)
        self.page.locator("#problem").wait_for(state="hidden", timeout=60_000)

    def _note(self, message: Any) -> None:
        if message.type == "error" and "WebSocket connection" not in message.text:
            self.errors.append(message.text)

    def said(self, text: str) -> None:
        self.page.locator("#status").filter(has_text=re.compile(text)).wait_for(timeout=60_000)

    def badge(self, text: str) -> None:
        self.page.locator("#place").filter(has_text=text).wait_for(timeout=60_000)

    def place(self, point: tuple[float, float]) -> tuple[float, float]:
        box = self.page.locator("#shapes").bounding_box()
        scale = min(box["width"] / SIZE[0], box["height"] / SIZE[1])
        left = box["x"] + (box["width"] - scale * SIZE[0]) / 2
        top = box["y"] + (box["height"] - scale * SIZE[1]) / 2
        return left + scale * point[0], top + scale * point[1]

    def click(self, point: tuple[float, float]) -> None:
        self.page.mouse.click(*self.place(point))

    def name(self, label: str) -> None:
        self.page.locator("#label:enabled").fill(label)
        self.page.locator("#label").press("Enter")

    def track(self, label: str) -> Any:
        row = self.page.locator("#tracks button").filter(has_text=label)
        row.first.wait_for(timeout=60_000)
        return row.first


def test_named_by_a_click_followed_rejected_and_taken_back(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with (
        browser() as chromium,
        watching(clip, tmp_path / "home", "--output", str(out), "--library", "new") as (
            url,
            running,
        ),
    ):
        page, other = Page(chromium, url), Page(chromium, url)
        page.click(disc_xy(0))
        page.said("Outlined")
        page.name("<b>disc</b>")
        page.said(r"Learnt: #1 is <b>disc</b>. The library has 1 example\.")
        page.track("<b>disc</b>")
        other.track("<b>disc</b>")
        # A box around the square.
        x, y = square_xy(0)
        page.page.mouse.move(*page.place((x - 22, y - 22)))
        page.page.mouse.down()
        page.page.mouse.move(*page.place((x + 22, y + 22)), steps=4)
        page.page.mouse.up()
        page.page.keyboard.type("square")  # "u" is a key, too: not while an outline is made
        page.page.keyboard.press("Enter")
        page.said("is square. The library has 2 examples")
        other.track("square").click()
        other.page.click("#reject")
        other.said("is not square")
        page.page.click("#undo")
        page.said("Taken back: ")
        page.page.click("#pause")
        other.badge("paused")
        other.page.click("#pause")
        page.badge("playing")
        page.page.click("#finish")
        other.said("The video is finished")
        assert running.wait(30) == 0
        assert page.errors + other.errors == []
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert "<b>disc</b>" in [each["label"] for each in lines[-1]["detections"]]


def test_by_keyboard_alone_and_a_file_that_ends(short: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with browser() as chromium, watching(short, home, "--unknown") as (url, running):
        page = Page(chromium, url)
        page.said("The video ended. Its last frame stays")
        page.page.locator("#shapes").focus()
        for key, count in (("ArrowLeft", 32), ("ArrowUp", 19)):  # from the middle to the disc
            for _ in range(count):
                page.page.keyboard.press(key)
        page.said("Cross on #")
        page.page.keyboard.press("Enter")
        page.page.locator("#label:focus").wait_for()
        page.page.keyboard.type("disc")
        page.page.keyboard.press("Enter")
        page.said(r"is disc. The library has 1 example\.")
        page.track("disc")
        page.page.keyboard.press("u")
        page.said("Taken back: disc")
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0, "all was done"
        assert page.errors == []
    frames = (home / "frames.jsonl").read_text("utf-8").splitlines()
    assert len(frames) == 1 + 12


def test_a_lost_connection_comes_back_and_names_are_sent_later(clip: Path, tmp_path: Path) -> None:
    with browser() as chromium, watching(clip, tmp_path / "home", "--unknown") as (url, _):
        page = Page(chromium, url)
        page.click(disc_xy(0))
        page.page.locator("#label:enabled").wait_for()
        # Stands for a network that is away: what is open is cut, and nothing else gets through.
        page.page.evaluate("""() => {
          window.RealSocket = WebSocket;
          const send = RealSocket.prototype.send;
          RealSocket.prototype.send = function (text) { this.close(); };
          window.WebSocket = function () {
            const none = new EventTarget();
            setTimeout(() => none.dispatchEvent(new Event("close")), 50);
            return none;
          };
          window.WebSocket.OPEN = 1;
          window.back = () => { RealSocket.prototype.send = send; window.WebSocket = RealSocket; };
        }""")
        page.badge("no connection")
        page.said("No connection. The next try is in")
        page.name("disc")
        page.page.locator("#saved").filter(has_text="1 not sent yet").wait_for()
        page.page.evaluate("back()")
        page.said(r"Learnt: #\d+ is disc")
        page.page.locator("#saved").filter(has_text="all sent").wait_for()
        page.track("disc")
        assert page.errors == []


@pytest.mark.parametrize("size", [(1280, 720), (820, 1180)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(
    short: Path, tmp_path: Path, size: tuple[int, int], scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe here")
    with browser() as chromium, watching(short, tmp_path / "home", "--unknown") as (url, _):
        page = Page(chromium, url, size)
        page.page.emulate_media(color_scheme=scheme)
        page.said("The video ended")
        page.click(disc_xy(0))
        page.name("disc")
        page.track("disc").click()
        for show in (None, "#show-help"):
            if show:
                page.page.click(show)
            found = axe.Axe().run(
                page.page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]}
            )
            assert found.violations_count == 0, found.generate_report()
        assert page.page.evaluate("document.documentElement.scrollWidth") <= size[0]


def _socket(url: str, *protocols: str, **options: Any) -> Any:
    address = url.replace("http", "ws", 1) + "api/live"
    return client.connect(address, subprotocols=protocols or ("sam-detect",), **options)


def _until(socket: Any, kind: str) -> dict[str, Any]:
    while True:
        got = socket.recv(timeout=30)
        if isinstance(got, str) and json.loads(got)["type"] == kind:
            return dict(json.loads(got))


def test_messages_sockets_and_slow_clients(clip: Path, tmp_path: Path) -> None:
    from websockets.exceptions import InvalidStatus

    with watching(clip, tmp_path / "home", "--unknown") as (url, _), ExitStack() as stack:
        socket = stack.enter_context(_socket(url))
        frame = _until(socket, "frame")
        assert socket.recv(timeout=30)[:2] == b"\xff\xd8"
        for text in ("{", '{"type": "dance", "id": "a"}', "a" * 20_000, b"\0"):
            socket.send(text)
            assert _until(socket, "problem")["status"] == 422
        socket.send(json.dumps({"type": "look", "id": "1", "number": 10**6, "point_xy": [1, 1]}))
        assert "is gone" in _until(socket, "problem")["detail"]
        question = {"type": "name", "id": "2", "track": frame["tracks"][0]["id"], "label": "thing"}
        for _ in range(2):  # sent twice, done once
            socket.send(json.dumps(question))
            assert _until(socket, "answer")["total"] == 1
        again = {"type": "look", "id": "3", "track": question["track"]}
        keys = set()
        for _ in range(2):
            socket.send(json.dumps(again))
            keys.add(_until(socket, "answer")["seen"])
        assert len(keys) == 1
        # The client does not take this one's frames; the video goes on, and it gets the latest one.
        before = frame["number"]
        time.sleep(1.5)
        other = stack.enter_context(_socket(url))
        newest = _until(other, "frame")["number"]
        assert newest > before + 10
        socket.send(json.dumps({"type": "got", "number": 10**6}))
        numbers = [_until(socket, "frame")["number"] for _ in range(2)]
        assert numbers[-1] >= newest
        for _ in range(14):
            stack.enter_context(_socket(url))
        with pytest.raises(InvalidStatus) as refused:
            _socket(url)
        assert refused.value.response.status_code == 503
        assert b"windows watch already" in refused.value.response.body


def test_only_who_may_ask_is_answered(clip: Path, tmp_path: Path) -> None:
    from websockets.exceptions import InvalidStatus

    with watching(clip, tmp_path / "home", SAM_DETECT_TOKEN=TOKEN) as (url, _):
        page = httpx.get(url)
        assert page.status_code == 200
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert httpx.get(f"{url}nothing").status_code == 401
        for protocols in (("sam-detect",), ("sam-detect", "token.wrong")):
            with pytest.raises(InvalidStatus) as refused:
                _socket(url, *protocols)
            assert refused.value.response.status_code == 401
        token = urlsafe_b64encode(TOKEN.encode()).decode().rstrip("=")
        with pytest.raises(InvalidStatus) as refused:
            _socket(url, "sam-detect", f"token.{token}", origin="https://elsewhere.example")
        assert refused.value.response.status_code == 403
        with _socket(url, "sam-detect", f"token.{token}") as socket:
            assert _until(socket, "state")["name"] == "clip.mp4"


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--host", "0.0.0.0"), "need a token"), (("--show",), "leave one of them out")],
)
def test_what_cannot_be_served_is_said(short: Path, options: tuple[str, ...], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sam_detect", "video", str(short), "--page", "--port", "0",
         *options],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
