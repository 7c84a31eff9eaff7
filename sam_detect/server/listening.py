"""The socket of a server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from sam_detect.errors import ConfigError, one_line

WAITING = 128
"""Connections that may wait to be accepted."""


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
