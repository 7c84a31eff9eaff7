"""Unwanted clients: who may not ask, who is slow, and who wants to know too much."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

from fastapi import FastAPI, Response
from starlette.routing import Route
from starlette.types import ASGIApp
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from sam_detect.api import SAMDetect
from sam_detect.server import listening
from sam_detect.server.access import Access
from sam_detect.server.detecting import ServiceLimits
from sam_detect.server.detectors import Detectors
from sam_detect.server.http import Guard, answer_problems
from sam_detect.server.listening import served
from sam_detect.server.live import LiveSession
from sam_detect.server.live_app import live_app
from sam_detect.server.service import service_app
from sam_detect.server.ui import AnnotationUI
from tests.integration.page_harness import TOKEN, draw_photos

OPTIONS: dict[str, Any] = {"segmenter": "naive", "embedder": "appearance"}
WITHOUT_TOKEN = {
    "annotate": ["/", "/annotate.css", "/api.js", "/controls.js", "/counts.js", "/dom.js",
                 "/groups.js", "/icon.svg", "/keys.js", "/library", "/library.css", "/library.js",
                 "/library_files.js", "/library_map.js", "/library_words.js", "/naming.js",
                 "/outbox.js", "/page.css", "/page.js", "/queue.js", "/shapes.js", "/tools.js",
                 "/vendor/openseadragon.js", "/viewer.js", "/why.js"],
    "serve": ["/docs", "/docs.js", "/healthz", "/icon.svg", "/page.css"],
    "live": ["/", "/api.js", "/icon.svg", "/live.css", "/live.js", "/live_line.js",
             "/live_picture.js", "/page.css"],
}  # fmt: skip
"""What is answered to all clients: files of the package, which say nothing."""


SOCKETS: dict[str, list[Any]] = {"serve": ["v1/stream"], "live": ["api/live"]}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(params=list(WITHOUT_TOKEN))
def guarded(request: pytest.FixtureRequest, home: Path) -> Iterator[tuple[str, ASGIApp]]:
    """Each server of the package, with a token."""
    access, folder = Access("127.0.0.1", TOKEN), home.parent / "photos"
    detector = SAMDetect(**OPTIONS)
    detector.learn(draw_photos(folder) / "0.png", "nut", boxes_xywh=[[40, 40, 40, 40]])
    if request.param == "annotate":
        with AnnotationUI(detector).app(folder, access) as app:
            yield request.param, app
    elif request.param == "serve":
        yield (
            request.param,
            service_app(
                Detectors(OPTIONS, detector), access, ServiceLimits(), jobs_in=home / "jobs"
            ),
        )
    else:
        stream = detector.stream(draw_photos(home.parent / "frames"))
        yield request.param, live_app(LiveSession(stream), access)
        stream.close()


def _paths(app: Any) -> dict[str, set[str]]:
    """The methods of each path."""
    while not isinstance(app, FastAPI):
        app = app._app
    found = {path: {each.upper() for each in methods}
             for path, methods in app.openapi()["paths"].items()}  # fmt: skip
    pages = [each for each in app.routes if isinstance(each, Route)]
    return {each.path: set(each.methods or ()) for each in pages} | found


def test_nothing_is_answered_without_the_token(guarded: tuple[str, ASGIApp]) -> None:
    name, app = guarded
    answered = set()
    with served(app, "127.0.0.1", 0) as url, httpx.Client(base_url=url, timeout=30) as client:
        for address in SOCKETS.get(name, ()):
            offered: list[Any] = [None, ["sam-detect"], ["sam-detect", "token.d3Jvbmc"]]
            for protocols in offered:
                with pytest.raises(InvalidStatus, match="401"):
                    connect(url.replace("http", "ws", 1) + address, subprotocols=protocols)
        for route, methods in _paths(app).items():
            path = re.sub(r"\{[^}]*\}", "0", route)
            for method in (*methods, "OPTIONS"):
                for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN},
                              {"Cookie": f"token={TOKEN}"}):  # fmt: skip
                    asked = f"{path}?token={TOKEN}"
                    status = client.request(method, asked, headers=wrong).status_code
                    if status != 401:
                        assert (status, method in ("GET", "HEAD")) == (200, True), path
                        answered.add(path)
    assert sorted(answered) == WITHOUT_TOKEN[name]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "IDLE_SECONDS", 1)
    monkeypatch.setattr(listening, "STALLED_SECONDS", 1)
    monkeypatch.setattr(listening, "WATCH_SECONDS", 0.1)


def _slow_or_large() -> FastAPI:
    """Answers after longer than a connection may be idle, or with much."""
    app = FastAPI()

    @app.get("/slow")
    async def slow() -> Response:
        await asyncio.sleep(1.6)
        return Response("answer")

    @app.get("/large")
    async def large() -> Response:
        return Response(bytes(64 << 20))

    return app


def _connected(url: str, seconds: float) -> socket.socket:
    place = httpx.URL(url)
    assert place.port is not None
    return socket.create_connection((place.host, place.port), timeout=seconds)


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /slow HT", b"GET /slow HTTP/1.1\r\nHost: x\r\nX: ",
     b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /sl"],
    ids=["nothing", "half a line", "endless headers", "half a second request"],
)  # fmt: skip
@pytest.mark.usefixtures("impatient")
def test_a_request_that_never_comes_is_not_waited_for(sent: bytes) -> None:
    with served(_slow_or_large(), "127.0.0.1", 0) as url:
        with _connected(url, 0.2) as slow:
            slow.sendall(sent)
            end = time.monotonic() + 10
            while time.monotonic() < end:
                try:
                    if not slow.recv(4096):
                        break
                except TimeoutError:  # some more of the headers
                    slow.sendall(b"a" if sent.endswith(b": ") else b"")
                except ConnectionError:
                    break
            else:
                pytest.fail("the connection is still open")
        assert httpx.get(f"{url}slow").text == "answer", "whoever waits for an answer gets it"


@pytest.mark.usefixtures("impatient")
def test_who_does_not_read_the_answer_is_given_up() -> None:
    with served(_slow_or_large(), "127.0.0.1", 0) as url:
        with _connected(url, 10) as lazy:
            lazy.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(3)
            assert _taken(lazy, 0) < 64 << 20
        # A reader that is only slow gets all of it.
        with _connected(url, 10) as slow:
            slow.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert _taken(slow, 0.05) > 64 << 20


def _taken(reader: socket.socket, pause: float) -> int:
    """How many bytes of an answer come until the connection ends."""
    count = 0
    with suppress(ConnectionResetError):
        while data := reader.recv(2 << 20):
            count += len(data)
            time.sleep(pause)
    return count


def test_no_answer_says_where_things_lie(home: Path) -> None:
    photos = draw_photos(home.parent / "photos", 3)
    (photos / "bad.png").write_bytes(b"no picture")
    os.mkfifo(photos / "pipe.png")
    (photos / "away.png").symlink_to("/etc/passwd")
    detector = SAMDetect(**OPTIONS)
    detector.learn(photos / "0.png", "nut", boxes_xywh=[[40, 40, 40, 40]])
    access = Access("127.0.0.1")
    said: dict[str, httpx.Response] = {}
    with (
        AnnotationUI(detector).app(photos, access) as app,
        served(app, "127.0.0.1", 0) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        names = [each["name"] for each in client.get("api/pictures").json()["pictures"]]
        (photos / "1.png").unlink()
        for number, name in enumerate(names):
            said[name] = client.get(f"api/pictures/{number}")
        for path in ("api/library", "api/library/log", "api/library/examples?label=nut",
                     "api/examples/0000/thumbnail", "api/pictures?policy=rare"):  # fmt: skip
            said[path] = client.get(path)
    for name in ("1.png", "bad.png", "pipe.png", "away.png"):
        assert (said[name].status_code, name in said[name].json()["detail"]) == (422, True)
    service = service_app(Detectors(OPTIONS, detector), access, ServiceLimits())
    with served(service, "127.0.0.1", 0) as url, httpx.Client(base_url=url, timeout=30) as client:
        for path in ("v1/libraries/default", "v1/examples", "v1/libraries/none", "readyz"):
            said[path] = client.get(path)
        library = home / "libraries" / "sam_detect" / "library.json"
        library.write_bytes(b"{")
        said["damaged"] = client.get("v1/libraries/default")
    assert said["damaged"].status_code == 409
    assert "SAM_DETECT_HOME/libraries" in said["v1/libraries/default"].json()["location"]
    assert said["v1/examples"].json()["examples"][0]["source"] == "0.png"
    for path, answer in said.items():
        assert str(home.parent) not in answer.text, path


def test_an_error_that_nobody_foresaw_is_a_problem(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    answer_problems(app)
    causes = {
        "bug": (KeyError("secret"), 500, "see its log"),
        "memory": (MemoryError(), 507, "send less"),
        "disk": (OSError(28, "No space left on device", "/secret/file"), 507, "No space left"),
    }

    @app.get("/{name}")
    def fail(name: str) -> None:
        raise causes[name][0]

    guard = Guard(app, Access("127.0.0.1"))
    with served(guard, "127.0.0.1", 0) as url, httpx.Client(base_url=url) as client:
        for name, (_, status, words) in causes.items():
            answer = client.get(name)
            assert answer.status_code == answer.json()["status"] == status
            assert answer.headers["content-type"] == "application/problem+json"
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert words in answer.json()["detail"]
            assert "secret" not in answer.text
    assert caplog.text.count("Traceback") == 1, "that of the bug"
