"""An RTSP camera on this machine: one connection at a time, pictures as MPEG-TS in RTP over TCP
(RFC 2326, 3550 and 2250)."""

from __future__ import annotations

import base64
import socketserver
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

TS_BYTES = 188
PER_PACKET = 7
MP2T = 33
TICKS_PER_PACKET = 900
SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=live\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 33\r\na=control:one\r\n"
)


class RtspServer:
    """Sends one recording to each connection in turn, then breaks it.

    Args:
        recordings: MPEG-TS files' contents.
        user: ``name:password`` that is wanted; empty for none.
    """

    def __init__(self, recordings: Sequence[bytes], user: str = "") -> None:
        self.recordings = list(recordings)
        self.wanted = f"Basic {base64.b64encode(user.encode()).decode()}" if user else ""
        self.methods: list[str] = []
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def rtsp(recordings: Sequence[bytes], user: str = "") -> Iterator[RtspServer]:
    server = RtspServer(recordings, user)
    try:
        yield server
    finally:
        server.close()


def _handler(server: RtspServer) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                while request := self._request():
                    if not self._answered(*request):
                        return

        def _request(self) -> tuple[str, dict[str, str]] | None:
            first = self.rfile.readline().decode().split()
            headers = {}
            while line := self.rfile.readline().decode().strip():
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            return (first[0], headers) if first else None

        def _answered(self, method: str, headers: dict[str, str]) -> bool:
            """Whether the connection goes on."""
            server.methods.append(method)
            number = headers.get("cseq", "0")
            if server.wanted and headers.get("authorization") != server.wanted:
                challenge = {"WWW-Authenticate": 'Basic realm="camera"'}
                self._say("401 Unauthorized", number, challenge)
                return True
            body = SDP if method == "DESCRIBE" else ""
            more = {
                "OPTIONS": {"Public": "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"},
                "DESCRIBE": {"Content-Type": "application/sdp"},
                "SETUP": {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1", "Session": "1"},
            }
            self._say("200 OK", number, more.get(method, {"Session": "1"}), body)
            if method == "PLAY":
                self._play(server.recordings.pop(0) if server.recordings else b"")
            return method not in ("PLAY", "TEARDOWN")

        def _say(self, status: str, number: str, headers: dict[str, str], body: str = "") -> None:
            lines = [f"RTSP/1.0 {status}", f"CSeq: {number}"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            lines += [f"Content-Length: {len(body)}"] if body else []
            self.wfile.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())

        def _play(self, recording: bytes) -> None:
            size = TS_BYTES * PER_PACKET
            for count, start in enumerate(range(0, len(recording), size)):
                head = struct.pack(">BBHII", 0x80, MP2T, count, count * TICKS_PER_PACKET, 1)
                packet = head + recording[start : start + size]
                self.wfile.write(struct.pack(">cBH", b"$", 0, len(packet)) + packet)

    return Handler
