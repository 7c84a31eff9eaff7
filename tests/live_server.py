"""A camera on this machine's network that can be told to misbehave: live pictures over HTTP."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import cv2
from local_server import LocalServer, QuietHandler
from video_files import ImageRGB, picture

BOUNDARY = "next"
REALM, NONCE = "camera", "0123456789abcdef"
CHALLENGE = f'realm="{REALM}", nonce="{NONCE}", qop="auth", algorithm=MD5'


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def jpeg_part(image: ImageRGB) -> bytes:
    """One picture as IP cameras send it."""
    done, data = cv2.imencode(".jpg", image[..., ::-1])
    assert done
    head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data.tobytes() + b"\r\n"


def numbered_parts(count: int, *, first: int = 0) -> list[bytes]:
    """So many numbered pictures."""
    return [jpeg_part(picture(number)) for number in range(first, first + count)]


@dataclass
class Camera:
    """What the server sends, once, to whoever is connected.

    Attributes:
        parts: in this order; who connects later gets what is left.
        pace_s: pause before each.
        break_before: numbers of parts before which the connection breaks.
        silent_after: number of the part before which it falls silent for good.
        refuse: so many connections after a break are answered with HTTP 503.
        user: ``name:password`` that is wanted, as a digest (RFC 2617); empty for none.
        deaf: whether connections after a break are not answered at all.
        ends: whether the last part is followed by a proper end; else by silence.
    """

    parts: Sequence[bytes]
    pace_s: float = 0.01
    break_before: set[int] = field(default_factory=set)
    silent_after: int | None = None
    refuse: int = 0
    deaf: bool = False
    ends: bool = True
    user: str = ""
    content_type: str = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
    sent: int = 0
    connections: int = 0

    def next_part(self) -> bytes | None:
        """The next one; None where the connection is to break."""
        if self.sent in self.break_before:
            self.break_before.discard(self.sent)
            return None
        self.sent += 1
        return self.parts[self.sent - 1]


class LiveServer(LocalServer):
    """Serves one camera at every path."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        super().__init__(_handler(self))

    @property
    def url(self) -> str:
        return f"http://{self.host}/live"


@contextmanager
def live(camera: Camera) -> Iterator[LiveServer]:
    server = LiveServer(camera)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def deaf() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/live"


def _handler(server: LiveServer) -> type[QuietHandler]:
    class Handler(QuietHandler):
        def do_GET(self) -> None:
            camera = server.camera
            camera.connections += 1
            if camera.connections > 1 and camera.deaf:
                server.closing.wait()
            if camera.connections > 1 and camera.refuse:
                camera.refuse -= 1
                self.send_error(503)
                return
            if camera.user and not self._may(camera.user):
                self.send_response(401)
                self.send_header("WWW-Authenticate", f"Digest {CHALLENGE}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Type", camera.content_type)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.close_connection = True
            with suppress(OSError):
                self._send(camera)

        def _may(self, user: str) -> bool:
            given = dict(re.findall(r'(\w+)="?([^",]+)', self.headers.get("Authorization", "")))
            name, _, password = user.partition(":")
            one = md5(f"{name}:{REALM}:{password}")
            other = md5(f"GET:{self.path}")
            count, own = given.get("nc"), given.get("cnonce")
            return given.get("response") == md5(f"{one}:{NONCE}:{count}:{own}:auth:{other}")

        def _send(self, camera: Camera) -> None:
            while camera.sent < len(camera.parts):
                if camera.sent == camera.silent_after:
                    server.closing.wait()
                if server.closing.wait(camera.pace_s):
                    return
                part = camera.next_part()
                if part is None:
                    return
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            if camera.ends:
                self.wfile.write(b"0\r\n\r\n")
            else:
                server.closing.wait()

    return Handler
