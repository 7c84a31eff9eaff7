"""The socket of a server, and the loop that answers it."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from sam_detect.errors import ConfigError, SamDetectError, one_line

WAITING = 128
"""Connections that may wait to be accepted."""
LEAVE_SECONDS = 5
"""What is being answered when a server is told to stop may take so long."""
MAX_MESSAGE = 1 << 20
"""Bytes of a message of a WebSocket, unless a server says otherwise."""
IDLE_SECONDS = 15
"""A connection on which nothing comes is closed."""


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
    config = uvicorn.Config(
        app, log_level=logging.WARNING, access_log=False, server_header=False, lifespan="on",
        timeout_graceful_shutdown=leave_seconds, timeout_keep_alive=IDLE_SECONDS,
        ws_max_size=max_message, limit_concurrency=max_requests_at_once, log_config=None,
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
