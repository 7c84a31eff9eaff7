"""``/v1/stream``: pictures in over a WebSocket, detections out, in their order."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, WebSocket, WebSocketDisconnect

from sam_detect.errors import ConfigError, SamDetectError
from sam_detect.server.detecting import Service
from sam_detect.server.http import OpenSockets, received, until_one_ends
from sam_detect.server.problems import BusyError, problem_of
from sam_detect.server.schemas import Asked
from sam_detect.server.uploads import stored

MOST_STREAMS = 16
"""Streams that may be open at once."""
MOST_AHEAD = 4
"""Pictures of a stream that are kept until it is their turn; further ones stay on the way, so that
the client's sending waits."""
MOST_AHEAD_BYTES = 64 << 20
"""Bytes of the pictures of a stream that are kept, unless one picture is larger."""
MOST_SKIPPED = 1000
"""Pictures of a stream with ``latest`` that are skipped before the client has to take an answer."""

Answer = dict[str, Any]


def stream_routes(service: Service) -> APIRouter:
    """The stream."""
    router = APIRouter(prefix="/v1")
    sockets = OpenSockets(MOST_STREAMS, "streams are open already: close one")

    @router.websocket("/stream")
    async def stream(
        socket: WebSocket,
        how: Annotated[Asked, Depends()],
        latest: Annotated[bool, Query()] = False,
    ) -> None:
        await sockets.serve(socket, _StreamClient(service, socket, how, latest=latest).run)

    return router


@dataclass
class _StreamedPicture:
    """A picture that came.

    Attributes:
        number: from 1.
        data: of its file; None where it was no binary message, or is skipped.
        skipped: because a newer one came.
    """

    number: int
    data: bytes | None
    skipped: bool = False


class _StreamClient:
    """One client: what it sends, and what it gets.

    Args:
        how: its pictures are detected.
        latest: whether a picture is skipped when a newer one is there.
    """

    def __init__(self, service: Service, socket: WebSocket, how: Asked, *, latest: bool) -> None:
        self._service, self._socket, self._how, self._latest = service, socket, how, latest
        self._most = MOST_SKIPPED if latest else MOST_AHEAD
        self._waiting: deque[_StreamedPicture] = deque()
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        """Until the client is gone."""
        with self._service.metrics.streams.track_inprogress():
            await until_one_ends(self._hear(), self._answer())

    async def _hear(self) -> None:
        """Takes pictures, numbered from 1, as long as there is room for them."""
        number = 0
        async for event in received(self._socket):
            number += 1
            async with self._changed:
                await self._changed.wait_for(self._has_room)
                if self._latest and self._waiting:
                    last = self._waiting[-1]
                    last.data, last.skipped = None, True
                self._waiting.append(_StreamedPicture(number, event.get("bytes")))
                self._changed.notify_all()

    def _has_room(self) -> bool:
        kept = sum(len(each.data or b"") for each in self._waiting)
        return len(self._waiting) < self._most and kept < MOST_AHEAD_BYTES

    async def _answer(self) -> None:
        """Answers each picture, one by one."""
        with suppress(WebSocketDisconnect, RuntimeError):  # it is gone
            while True:
                async with self._changed:
                    await self._changed.wait_for(lambda: self._waiting)
                    picture = self._waiting.popleft()
                    self._changed.notify_all()
                answer = {"skipped": True} if picture.skipped else await self._detect(picture)
                text = json.dumps({"number": picture.number, **answer}, ensure_ascii=False)
                await self._socket.send_text(text)

    async def _detect(self, picture: _StreamedPicture) -> Answer:
        try:
            if picture.data is None:
                raise ConfigError("send each picture as a binary message")
            with stored([(f"frame-{picture.number}", picture.data)]) as uploads:
                service = self._service
                found: Answer = await service.run(service.detect, self._how, uploads[0])
                return found
        except BusyError as error:
            return {"problem": problem_of(error) | {"retry_after": error.retry_after}}
        except (SamDetectError, OSError, MemoryError) as error:
            return {"problem": problem_of(error)}
