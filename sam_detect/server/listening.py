"""The socket of a server, the loop that answers it, and the process that does so for weeks."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from sam_detect.errors import ConfigError, SamDetectError, one_line

WAITING = 128
"""Connections that may wait to be accepted."""
LEAVE_SECONDS = 5
"""Time for what is being answered when a server is told to stop."""
MAX_MESSAGE = 1 << 20
"""Bytes of a message of a WebSocket, unless a server says otherwise."""
IDLE_SECONDS = 15
"""A connection on which no whole request comes is closed, also one on which a request comes slowly:
its body has a time of its own (:class:`~sam_detect.server.http.Guard`)."""
STALLED_SECONDS = 60
"""A client that takes nothing of its answer for this time is given up."""
WATCH_SECONDS = 1.0
MOST_CONNECTIONS = 1024
"""Open at once, and fewer than half of the files that this process may open (``ulimit -n``)."""
M_ARENA_MAX = -8
"""Of ``mallopt(3)``: how many heaps the threads of a process share."""
TRIM_SECONDS = 10.0
"""Between two times that free memory is given back; each takes some milliseconds."""


class WatchedConnection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # h11 or httptools
    """A connection of uvicorn, which by itself waits for ever for the headers of a request, and for
    a client that does not read."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._moved, self._unread = self.loop.time(), 0
        self._watching = self.loop.call_later(WATCH_SECONDS, self._watch)
        if len(self.connections) > most_connections():
            idle = [c for c in self.connections if isinstance(c, WatchedConnection) and c.is_idle]
            min(idle, key=lambda each: each._moved, default=self).transport.abort()

    @property
    def is_idle(self) -> bool:
        """Whether it is open, and no request is being answered."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and not self.transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._watching.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        transport: asyncio.Transport = self.transport
        if transport.get_protocol() is not self:
            return  # it is a WebSocket now, and has its pings
        now, unread = self.loop.time(), transport.get_write_buffer_size()
        moves = unread != self._unread if unread else not self.is_idle
        if moves:
            self._moved = now
        self._unread = unread
        if now - self._moved > (STALLED_SECONDS if unread else IDLE_SECONDS):
            transport.abort()
        else:
            self._watching = self.loop.call_later(WATCH_SECONDS, self._watch)


class WatchedSocket(WebSocketsSansIOProtocol):
    """A WebSocket of uvicorn, which by itself says nothing, for ever, to a handshake that it cannot
    read: one with a line of more than 8 KB, or with a body."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            self.transport.close()


def most_connections() -> int:
    """How many connections may be open: one more takes the place of the one that is idle longest.
    Without files that are left, the loop could accept none, and would say so again and again."""
    files = os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else -1  # -1: no limit
    return MOST_CONNECTIONS if files < 0 else max(16, min(MOST_CONNECTIONS, (files - WAITING) // 2))


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens at an address; raises ``ConfigError`` where that is not possible."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=WAITING)
    except OSError as error:
        raise ConfigError(
            f"{host} port {port} cannot be listened at ({one_line(error)}): choose another --port, "
            "or 0 for any that is free"
        ) from error
    with listening:
        yield listening


def address_of(listening: socket.socket) -> str:
    """The address of a listening socket, for a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def server_of(
    app: ASGIApp,
    *,
    leave_seconds: int = LEAVE_SECONDS,
    max_message: int = MAX_MESSAGE,
) -> uvicorn.Server:
    """A server of an application; ``run(sockets=[...])`` answers until it is told to stop.

    Args:
        leave_seconds: time for what is being answered then.
        max_message: bytes of a message of a WebSocket.
    """
    # Messages are not inflated: what one read brings would be a thousand times as much in memory.
    config = uvicorn.Config(
        app, log_level=logging.WARNING, access_log=False, server_header=False, lifespan="on",
        timeout_graceful_shutdown=leave_seconds, timeout_keep_alive=IDLE_SECONDS,
        http=WatchedConnection, ws=WatchedSocket, ws_max_size=max_message, log_config=None,
        ws_per_message_deflate=False, backlog=WAITING,
    )  # fmt: skip
    return uvicorn.Server(config)


def run_until_told(server: uvicorn.Server, listening: socket.socket) -> None:
    """Answers until it is told to stop. At SIGTERM the program then ends as at any other end, and
    removes what it has in the temporary folder: uvicorn would kill it."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)) if main else None
    with suppress(SystemExit):
        server.run(sockets=[listening])
    if main:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def served(app: ASGIApp, host: str, port: int) -> Iterator[str]:
    """Answers in a thread of its own while the block runs; gives the address."""
    with listen(host, port) as listening:
        server = server_of(app)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listening]}, daemon=True, name="server"
        )
        thread.start()
        try:
            while not server.started:
                if not thread.is_alive():
                    raise SamDetectError("the server did not start")
                time.sleep(0.01)
            yield address_of(listening)
        finally:
            server.should_exit = True
            thread.join(LEAVE_SECONDS + 5)


@contextmanager
def long_running() -> Iterator[None]:
    """Keeps the threads of this process from taking cores and memory that they do not need.

    - Threads switch often (:func:`~sam_detect.pipeline.scheduling.short_switch_interval`).
    - BLAS' threads spin while they wait for work, and take the cores from those who answer.
    - glibc gives each thread a heap of its own (up to eight for a core), and keeps what a thread
      has freed for that thread. The threads of a server come and go, so its memory would grow for
      hours, with little of it in use. One heap was as quick as many in a load test of 50 clients.
      This holds for the threads that begin later, and is not undone.
    - What was freed below memory in use stays with the process: after 350 examples were learnt
      from, 381 MiB, of which 232 MiB were in use. It is given back every :data:`TRIM_SECONDS`.
    """
    from threadpoolctl import threadpool_limits

    from sam_detect.pipeline.scheduling import short_switch_interval

    stopped = threading.Event()
    libc = glibc()

    def give_back(libc: ctypes.CDLL) -> None:
        while not stopped.wait(TRIM_SECONDS):
            libc.malloc_trim(0)

    if libc is not None:
        libc.mallopt(M_ARENA_MAX, 1)
        threading.Thread(target=give_back, args=(libc,), name="trim", daemon=True).start()
    try:
        with short_switch_interval(), threadpool_limits(1, user_api="blas"):
            yield
    finally:
        stopped.set()


def glibc() -> ctypes.CDLL | None:
    """The C library of this process, where it is glibc (macOS, Windows and musl have others)."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
