"""Unwanted clients: who may not ask, who is slow, and who wants to know too much."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
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
from sam_detect.server.detecting import Detectors, ServiceLimits
from sam_detect.server.http import Guard
from sam_detect.server.listening import served
from sam_detect.server.live import LiveSession
from sam_detect.server.live_app import live_app
from sam_detect.server.problems import answer_problems
from sam_detect.server.service import service_app
from sam_detect.server.ui import AnnotationUI
from tests.integration.page_harness import TOKEN, draw_photos
from tests.integration.service_harness import serving

OPTIONS: dict[str, Any] = {"segmenter": "naive", "embedder": "appearance"}
WITHOUT_TOKEN = {
    "annotate": ["/", "/annotate.css", "/api.js", "/controls.js", "/counts.js", "/dom.js",
                 "/groups.js", "/icon.svg", "/keys.js", "/library", "/library.css", "/library.js",
                 "/library_files.js", "/library_map.js", "/library_words.js", "/naming.js",
                 "/outbox.js", "/page.css", "/page.js", "/queue.js", "/shapes.js", "/tags.js",
                 "/tools.js",
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
            service_app(Detectors(OPTIONS, detector), access, ServiceLimits()),
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
                     "api/examples/0000/thumbnail", "api/pictures?policy=diverse"):  # fmt: skip
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


HANDSHAKE = (
    "GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize(
    "more",
    ["X: " + "a" * 9000, "".join(f"X{i}: a\r\n" for i in range(130)) + "Y: b",
     "Content-Length: 5", "Transfer-Encoding: chunked", "Cookie: " + "c=d; " * 2000],
    ids=["a long line", "many lines", "a body", "a body in chunks", "many cookies"],
)  # fmt: skip
def test_a_handshake_that_cannot_be_read_is_ended(more: str) -> None:
    guard = Guard(FastAPI(), Access("127.0.0.1", TOKEN))
    with served(guard, "127.0.0.1", 0) as url, _connected(url, 10) as socket_:
        socket_.sendall(f"{HANDSHAKE}{more}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: socket_.recv(4096), b""))  # until it is closed
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 401 ", b"HTTP/1.1 431 "))


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs the limits of Linux")
def test_connections_without_end_leave_room_for_others(tmp_path: Path) -> None:
    import resource

    home = tmp_path / "home"
    with serving(home, SAM_DETECT_TOKEN=TOKEN) as (client, process), ExitStack() as opened:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (200, 200))
        place = client.base_url
        for number in range(500):
            idle = opened.enter_context(socket.create_connection((place.host, place.port), 10))
            with suppress(ConnectionError):
                idle.sendall([b"", b"GET / HT", f"{HANDSHAKE}X: {'a' * 9000}\r\n\r\n".encode()]
                             [number % 3])  # fmt: skip
        with httpx.Client(base_url=place, timeout=30) as other:
            assert other.get("/healthz").status_code == 200
        log = (home / "log").read_text()
        assert log.count("out of system resource") < 300, "a line for each, again and again"


def test_made_up_methods_are_no_figures(home: Path) -> None:
    service = service_app(
        Detectors(OPTIONS, SAMDetect(**OPTIONS)), Access("127.0.0.1", TOKEN), ServiceLimits()
    )
    with served(service, "127.0.0.1", 0) as url, httpx.Client(base_url=url) as client:
        for number in range(30):
            made_up = "X" * number + "AB"
            assert client.request(made_up, "/metrics").status_code in (401, 405)
        text = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    assert 'method="other",route="none",status="401"} 30.0' in text
    assert "XXAB" not in text


@pytest.mark.parametrize(
    "kind",
    ["multipart/form-data; boundary=b; charset=punycode", "application/json;charset=utf-16",
     'multipart/form-data; CHARSET = "punycode"; boundary=b', "application/json; charset=cp037",
     "multipart/form-data; charset=utf-8; charset=idna; boundary=b"],
)  # fmt: skip
def test_only_utf_8_is_read(home: Path, kind: str) -> None:
    service = service_app(
        Detectors(OPTIONS, SAMDetect(**OPTIONS)), Access("127.0.0.1"), ServiceLimits()
    )
    body = b'--b\r\nContent-Disposition: form-data; name="request"\r\n\r\n{}\r\n--b--\r\n'
    with served(service, "127.0.0.1", 0) as url, httpx.Client(base_url=url) as client:
        for path in ("v1/detect", "v1/examples"):
            answer = client.post(path, content=body, headers={"Content-Type": kind})
            assert (answer.status_code, "UTF-8" in answer.json()["detail"]) == (415, True)
        right = {"Content-Type": "application/json; charset=UTF-8"}
        said = client.post("v1/detect", content=b'{"images": [{"data": "%"}]}', headers=right)
        assert "base64" in said.json()["detail"]
        latin = '{"images": [{"name": "Nüsse", "data": ""}]}'.encode("latin-1")
        refused = client.post(
            "v1/detect", content=latin, headers={"Content-Type": "application/json"}
        )
        assert (refused.status_code, "UTF-8" in refused.json()["detail"]) == (400, True)


def test_a_form_that_was_cut_off_is_refused(home: Path) -> None:
    photo = (draw_photos(home.parent / "photos", 1) / "0.png").read_bytes()
    service = service_app(
        Detectors(OPTIONS, SAMDetect(**OPTIONS)), Access("127.0.0.1"), ServiceLimits())  # fmt: skip
    files = [("images", (f"{number}.png", photo)) for number in range(2)]
    with served(service, "127.0.0.1", 0) as url, httpx.Client(base_url=url, timeout=30) as client:
        whole = client.build_request("POST", "v1/detect", files=files)
        body, kind = whole.read(), whole.headers["content-type"]
        boundary = kind.partition("boundary=")[2]
        for path in ("v1/detect", "v1/jobs"):
            for cut in (-4, -10, -len(boundary) - 8, -len(photo) // 2, -len(photo) - 60, 40):
                answer = client.post(path, content=body[:cut], headers={"Content-Type": kind})
                assert answer.status_code == 400, (path, cut)
                assert "closing boundary" in answer.json()["detail"]
        assert client.get("v1/jobs").json() == {"jobs": []}
        quoted = {"Content-Type": f'multipart/form-data; boundary="{boundary}"'}
        for right in (body, body[:-2], body + b"epilogue"):
            answer = client.post("v1/detect", content=right, headers=quoted)
            assert len(answer.json()["results"]) == 2


def test_the_charset_of_a_part_is_not_read(home: Path) -> None:
    photo = (draw_photos(home.parent / "photos", 1) / "0.png").read_bytes()
    service = service_app(
        Detectors(OPTIONS, SAMDetect(**OPTIONS)), Access("127.0.0.1"), ServiceLimits()
    )
    request = '{"label": "Nüsse", "boxes_xywh": [[40, 40, 40, 40]]}'.encode()
    files: Any = {
        "image": ("0.png", photo),
        "request": (None, request, "application/json; charset=punycode"),
    }
    with served(service, "127.0.0.1", 0) as url, httpx.Client(base_url=url, timeout=30) as client:
        assert client.post("v1/examples", files=files).json()["added"] == 1
        assert client.get("v1/libraries/default").json()["classes"] == {"Nüsse": 1}


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"},
    {"Origin": "https://elsewhere.example"}, {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
]  # fmt: skip


@pytest.mark.parametrize("headers", FOREIGN)
def test_nothing_is_done_for_pages_of_others(home: Path, headers: dict[str, str]) -> None:
    detector = SAMDetect(**OPTIONS)
    photos = draw_photos(home.parent / "photos", 1)
    access = Access("127.0.0.1")
    service = service_app(Detectors(OPTIONS, detector), access, ServiceLimits())
    with AnnotationUI(detector).app(photos, access) as page:
        for app, asked, files in (
            (service, ["v1/examples", "v1/libraries", "metrics", "openapi.json"], ["docs"]),
            (page, ["api/pictures", "api/pictures/0", "api/library/export"], ["", "page.js"]),
        ):
            with served(app, "127.0.0.1", 0) as url, httpx.Client(base_url=url) as client:
                for method in ("GET", "HEAD", "POST"):
                    for path in asked:
                        answer = client.request(method, path, headers=headers)
                        assert answer.status_code == 403, path
                for path in files:  # a link to a page may be anywhere
                    assert client.get(path, headers=headers).status_code == 200, path
                for own in ({"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
                    assert client.get(asked[0], headers=own).status_code == 200


MEGABYTES = 12
BOMBS = {
    "objects": b'{"images": [' + b"{}," * (MEGABYTES * 340_000) + b"{}]}",
    "numbers": b'{"images": [' + b"1," * (MEGABYTES * 500_000) + b"1]}",
    "depth": b'{"images": ' + b"[" * (MEGABYTES << 20),
    "names": b"{" + b'"a":1,' * (MEGABYTES * 170_000) + b'"b":1}',
    "digits": b'{"images": ' + b"7" * (MEGABYTES << 20) + b"}",
}


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads memory as Linux tells it")
def test_json_takes_no_more_memory_than_its_bytes(tmp_path: Path) -> None:
    def peak_mb(pid: int) -> float:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024

    with serving(tmp_path / "home") as (client, process):
        text = b'{"images": [{"data": "' + b"A" * (MEGABYTES << 20) + b'"}]}'
        headers = {"Content-Type": "application/json"}
        assert client.post("/v1/detect", content=text, headers=headers).status_code == 200
        before = peak_mb(process.pid)
        for name, bomb in BOMBS.items():
            for path in ("/v1/detect", "/v1/jobs"):
                answer = client.post(path, content=bomb, headers=headers)
                assert answer.status_code == 422, name
                assert len(answer.text) < 1000, name
        assert peak_mb(process.pid) < before + 5 * MEGABYTES
