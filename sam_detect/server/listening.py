"""The socket of a server, and the loop that answers it."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from sam_detect.errors import ConfigError, SamDetectError, one_line

WAITING = 128
"""Connections that may wait to be accepted."""
LEAVE_SECONDS = 5
"""What is being answered when a server is told to stop may take so long."""
MAX_MESSAGE = 1 << 20
"""Bytes of a message of a WebSocket, unless a server says otherwise."""
IDLE_SECONDS = 15
"""A connection on which no whole request comes is closed, also one on which a request comes slowly:
its body has a time of its own (:class:`~sam_detect.server.http.Guard`)."""
STALLED_SECONDS = 60
"""So long a client may take nothing of its answer."""
WATCH_SECONDS = 1.0


class WatchedConnection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # h11 or httptools
    """A connection of uvicorn, which by itself waits for ever for the headers of a request, and for
    a client that does not read."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._moved, self._unread = self.loop.time(), 0
        self._watching = self.loop.call_later(WATCH_SECONDS, self._watch)

    def connection_lost(self, exc: Exception | None) -> None:
        self._watching.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        transport: asyncio.Transport = self.transport
        if transport.get_protocol() is not self:
            return  # it is a WebSocket now, and has its pings
        now, unread = self.loop.time(), transport.get_write_buffer_size()
        answering = self.cycle is not None and not self.cycle.response_complete
        moves = unread != self._unread if unread else answering
        if moves:
            self._moved = now
        self._unread = unread
        if now - self._moved > (STALLED_SECONDS if unread else IDLE_SECONDS):
            transport.abort()
        else:
            self._watching = self.loop.call_later(WATCH_SECONDS, self._watch)


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
    max_requests_at_once: int | None = None,
) -> uvicorn.Server:
    """A server of an application; ``run(sockets=[...])`` answers until it is told to stop.

    Args:
        leave_seconds: what is being answered then may take so long.
        max_message: bytes of a message of a WebSocket.
        max_requests_at_once: further ones are answered with 503.
    """
    # Messages are not inflated: what one read brings would be a thousand times as much in memory.
    config = uvicorn.Config(
        app, log_level=logging.WARNING, access_log=False, server_header=False, lifespan="on",
        timeout_graceful_shutdown=leave_seconds, timeout_keep_alive=IDLE_SECONDS,
        http=WatchedConnection, ws="websockets-sansio", ws_max_size=max_message, log_config=None,
        ws_per_message_deflate=False, limit_concurrency=max_requests_at_once,
    )  # fmt: skip
    return uvicorn.Server(config)


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
