"""Pictures by their web addresses: only public ones, and only as much as is allowed."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

from sam_detect.errors import ConfigError, ImageError
from sam_detect.server.fetching import Fetcher, is_public

CONTENT = b"a picture" * 100


class _Answers(BaseHTTPRequestHandler):
    hosts: list[str]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hosts.append(self.headers["Host"])
        if path == "/slow":
            time.sleep(2)
        to = {"/moved": "/picture", "/away": "http://10.0.0.1/private", "/round": "/round",
              "/file": "file:///etc/passwd", "/bracket": "http://[", "/dots": "http://a..b/",
              }.get(path)  # fmt: skip
        self.send_response(302 if to else 404 if path == "/none" else 200)
        if to:
            self.send_header("Location", to)
        if path == "/packed":
            self.send_header("Content-Encoding", "gzip")
        if path == "/endless":
            self.end_headers()
            for _ in range(1000):
                self.wfile.write(CONTENT)
            return
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    """A server; what it was asked for as is in ``_Answers.hosts``."""
    _Answers.hosts = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetch(url: str, *, permitted: Any = lambda _: True, seconds: float = 10) -> bytes:
    return asyncio.run(Fetcher(seconds=seconds, permitted=permitted).fetch(url, 10_000))


def test_a_picture_and_its_redirects(web: str) -> None:
    assert fetch(f"{web}/picture?key=1") == CONTENT
    assert fetch(f"{web}/moved") == CONTENT
    # It is asked for by its name, though the connection goes to the address that was checked.
    assert set(_Answers.hosts) == {web.removeprefix("http://")}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("none", "the answer is 404"), ("packed", "compressed"), ("round", "more than 3 redirects"),
        ("bracket", "cannot be fetched"), ("dots", "cannot be fetched"),
        ("endless", "more than 10000 bytes"), ("slow", "no answer within 0.5 s"),
    ],
)  # fmt: skip
def test_answers_that_are_no_picture(web: str, path: str, said: str) -> None:
    with pytest.raises(ImageError, match=said) as raised:
        fetch(f"{web}/{path}?key=secret", seconds=0.5)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://a/b", "gopher://a", "http://", "http:///x", "//a/b", "a.png", "",
     "http://[::1", "http://a:x/", "http://user:word@example.org/", "http://" + "a" * 3000],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError, match="an address"):
        fetch(url)


@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 64 + ".org", "\ud800", "a\0b"])
def test_what_is_no_name_of_a_host(host: str) -> None:
    with pytest.raises(ImageError, match="cannot be fetched"):
        fetch(f"http://{host}/picture")


def test_addresses_that_are_not_public_are_not_asked(
    web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = web.rpartition(":")[2]
    for host in ("localhost", "127.0.0.1", "[::1]", "0.0.0.0", "2130706433", "0x7f.1", "127.1"):
        with pytest.raises((ConfigError, ImageError), match=r"not a public|cannot be fetched"):
            fetch(f"http://{host}:{port}/picture", permitted=is_public)
    assert _Answers.hosts == []
    # A redirect to one, or to what is no web address.
    with pytest.raises(ConfigError, match="not a public address"):
        fetch(f"{web}/away", permitted=lambda address: str(address)[:3] != "10.")
    with pytest.raises(ConfigError, match=r"http:// or https://"):
        fetch(f"{web}/file")
    # A name that stands for a public and a private one.
    both = [(socket.AF_INET, 0, 0, "", (each, 80)) for each in ("1.1.1.1", "10.0.0.1")]
    monkeypatch.setattr(asyncio.base_events.socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(ConfigError, match="not a public address"):
        fetch("http://both.example/", permitted=is_public)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1",
     "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::",
     "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b:1::7f00:1", "fec0::1", "192.0.0.8"],
)  # fmt: skip
def test_addresses_of_closed_networks(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_addresses_of_the_public_internet(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
