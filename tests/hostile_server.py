"""A server that answers as no Qdrant server would: byte by byte, without end, packed."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

GREETING = {"title": "qdrant - vector search engine", "version": "1.19.0", "commit": "x"}
DRIP_S = 0.05


def plain(data: Any, *headers: str) -> bytes:
    """A whole answer."""
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    lines = ["HTTP/1.1 200 OK", "Content-Type: application/json", *headers,
             f"Content-Length: {len(body)}", "", ""]  # fmt: skip
    return "\r\n".join(lines).encode() + body


def dripping(data: bytes) -> Iterator[bytes]:
    """One byte at a time, for ever."""
    for byte in data:
        yield bytes([byte])
        time.sleep(DRIP_S)
    while True:
        yield b" "
        time.sleep(DRIP_S)


def dripping_body() -> Iterator[bytes]:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999999\r\n\r\n"
    yield head
    yield from dripping(b"")


def dripping_headers() -> Iterator[bytes]:
    yield from dripping(b"HTTP/1.1 200 OK\r\nContent-Type: " + b"a" * 99_999)


def endless() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n["
    while True:
        yield b"[]," * 20_000


def packed() -> Iterator[bytes]:
    """2 GB of spaces in 2 MB."""
    yield plain(gzip.compress(bytes(2 << 20)) * 1000, "Content-Encoding: gzip")


def nested() -> Iterator[bytes]:
    yield plain(b"[" * 10_000_000)


def broad() -> Iterator[bytes]:
    """As many small values as the limit lets through."""
    yield plain(b'{"result": {"aliases": [' + b"[]," * 5_000_000 + b"[]]}}")


ANSWERS: dict[str, Callable[[], Iterator[bytes]]] = {
    "a body that drips": dripping_body,
    "headers that drip": dripping_headers,
    "an answer without end": endless,
    "a packed answer": packed,
    "a deep answer": nested,
    "a broad answer": broad,
}


@contextmanager
def server(answers: dict[str, Callable[[], Iterator[bytes]]]) -> Iterator[str]:
    """Answers the paths (without their query) as told, others with the greeting; gives its URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while request := _request(connection):
                path = request.split(b" ")[1].decode().partition("?")[0]
                for part in answers[path]() if path in answers else [plain(GREETING)]:
                    if stopped.is_set():
                        return
                    connection.sendall(part)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        stopped.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def _request(connection: socket.socket) -> bytes:
    """The next request of a connection, with its body; empty when there is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n")
               if line.startswith(b"content-length:")]  # fmt: skip
    while lengths and len(body) < lengths[0]:
        body += connection.recv(65536)
    return data
