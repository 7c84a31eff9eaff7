"""The live page over HTTP: its files, and a WebSocket that sends frames and takes names."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sam_detect.errors import ConfigError, NotFoundError, SamDetectError
from sam_detect.models.sharing import LastUsed
from sam_detect.server.access import Access
from sam_detect.server.http import (
    SOCKET_PROTOCOL,
    Guard,
    OpenSockets,
    application,
    received,
    until_one_ends,
)
from sam_detect.server.live import ClickedObject, LiveSession
from sam_detect.server.live_frames import LiveEncoder, Pace, rings
from sam_detect.server.problems import BusyError, first_problem, problem, problem_of

PAGE = {
    "/": "live.html", "/icon.svg": "icon.svg",
    **{f"/{name}.js": f"{name}.js" for name in ("api", "live", "live_line", "live_picture")},
    **{f"/{name}.css": f"{name}.css" for name in ("page", "live")},
}  # fmt: skip
MOST_SOCKETS = 16
"""Windows that may watch at once."""
MOST_AT_ONCE = 8
"""Requests of one window that may be in progress."""
ANSWERS = 256
"""Answers that are kept: what comes again after a lost connection is not done twice."""
MOST_CHARACTERS = 16_384
"""Of a message; the longest one that makes sense has a name of 200 characters."""
MOST_LABEL = 2000
"""The library has its own limit, and says so in better words."""

Coordinate = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=1, le=2**53)]
Key = Annotated[str, Field(min_length=1, max_length=64)]
Answer = dict[str, Any]


class _Message(BaseModel):
    """Attributes: id: what an answer refers to; the same id again gets the same answer."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Question(_Message):
    id: Key


class Got(_Message):
    """A frame has come, and all those before it."""

    type: Literal["got"]
    number: Number


class Look(_Question):
    """Which object is it: at a point or in a box of a frame that was sent, or on a track now?"""

    type: Literal["look"]
    number: Number | None = None
    point_xy: tuple[Coordinate, Coordinate] | None = None
    box_xywh: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = None
    track: Number | None = None


class Name(Look):
    """An object has this name; ``seen`` is one that an answer to :class:`Look` gave."""

    type: Literal["name"]  # type: ignore[assignment]
    seen: Key | None = None
    label: Annotated[str, Field(max_length=MOST_LABEL)]


class Reject(_Question):
    """The object on a track is not what its label says."""

    type: Literal["reject"]
    track: Number | None = None
    seen: Key | None = None
    label: Annotated[str, Field(max_length=MOST_LABEL)]


class Undo(_Question):
    """Take back what was taught on a track, or what was taught last."""

    type: Literal["undo"]
    track: Number | None = None


class Control(_Question):
    """Pauses the video, lets it go on, or ends it."""

    type: Literal["pause", "resume", "finish"]


Request = Look | Name | Reject | Undo | Control
Message = Got | Request
_ANY: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def read_message(text: str) -> Message:
    """A message of a page.

    Raises:
        ConfigError: it is too long, no JSON, of an unknown kind, or malformed.
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(f"a message may have {MOST_CHARACTERS} characters")
    try:
        return _ANY.validate_json(text)
    except ValidationError as error:
        raise ConfigError(first_problem(error, within=1)) from error


class LivePage:
    """The windows that watch one video.

    Args:
        session: the video.
        most_sockets: further windows are refused.
    """

    def __init__(self, session: LiveSession, most_sockets: int = MOST_SOCKETS) -> None:
        self.session, self.encoder = session, LiveEncoder()
        self._sockets = OpenSockets(most_sockets, "windows watch already: close one")
        self._answers: LastUsed[str, asyncio.Future[Answer]] = LastUsed(ANSWERS)

    async def serve(self, socket: WebSocket) -> None:
        """One window, until it is gone or the video is finished."""
        if SOCKET_PROTOCOL not in socket.scope.get("subprotocols", ()):
            refusal = f"the WebSocket needs the protocol {SOCKET_PROTOCOL}"
            await socket.send_denial_response(problem(400, refusal))
            return
        await self._sockets.serve(socket, _Window(self, socket).run)

    def answer(self, message: Request, pace: Pace) -> asyncio.Future[Answer]:
        """What a request gives; the same one again gives the same answer."""
        return self._answers.get(
            f"{message.type} {message.id}", lambda: asyncio.ensure_future(self._do(message, pace))
        )

    async def _do(self, message: Request, pace: Pace) -> Answer:
        session = self.session
        match message:
            case Control():
                do: dict[str, Callable[[], None]] = {
                    "pause": partial(session.pause, paused=True),
                    "resume": partial(session.pause, paused=False), "finish": session.finish,
                }  # fmt: skip
                do[message.type]()
                return {}
            case Undo():
                undone = await asyncio.wrap_future(session.take_back(message.track))
                positive = [label for batch in undone for label in batch.labels]
                negative = [label for batch in undone for label in batch.negatives]
                return {"labels": positive, "negatives": negative}
            case Name() | Reject():
                seen = self._seen(message, pace)
                await asyncio.wrap_future(seen.masks)  # why there is none is said in its own words
                taught = await asyncio.wrap_future(
                    session.name_object(seen, message.label, negative=isinstance(message, Reject))
                )
                return {"track": taught.track_id, "label": message.label.strip(),
                        "total": taught.total}  # fmt: skip
            case Look():
                seen = self._seen(message, pace)
                masks = await asyncio.wrap_future(seen.masks)
                return {"seen": seen.key, "track": seen.track_id, "rings": rings(masks, 0)}

    def _seen(self, message: Look | Reject, pace: Pace) -> ClickedObject:
        """The object that a message is about.

        Raises:
            NotFoundError: it is not known any more.
            ConfigError: the message names none.
        """
        if message.track is not None:
            return self.session.look_at_track(message.track)
        if isinstance(message, (Name, Reject)) and message.seen is not None:
            return self.session.seen(message.seen)
        if isinstance(message, Reject) or (message.point_xy is None and message.box_xywh is None):
            raise ConfigError("which object? name a track, or a frame and a point or a box")
        tracked = pace.sent.get(message.number or 0)
        if tracked is None:
            raise NotFoundError("that picture is gone: click on the object again")
        return self.session.look(tracked, point_xy=message.point_xy, box_xywh=message.box_xywh)


class _Window:
    """One window: what it gets and what it asks."""

    def __init__(self, page: LivePage, socket: WebSocket) -> None:
        self._page, self._session, self._socket = page, page.session, socket
        self._pace = Pace()
        self._changed = asyncio.Event()
        self._sending = asyncio.Lock()
        self._state: Answer = {}
        self._asked: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()

        def changed() -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._changed.set)

        leave = self._session.listen(changed)
        try:
            await until_one_ends(self._show(), self._hear())
        finally:
            leave()
            for task in self._asked:
                task.cancel()
            await asyncio.gather(*self._asked, return_exceptions=True)
        with suppress(RuntimeError, WebSocketDisconnect):  # it is gone
            await self._socket.close()

    async def _show(self) -> None:
        """Sends what changes, the newest of it, until the video is finished."""
        session = self._session
        while True:
            self._changed.clear()
            await self._send_state()
            shown = session.shown
            if shown is not None and self._pace.takes(shown.number):
                frame = await asyncio.to_thread(self._page.encoder.encode, shown)
                async with self._sending:  # nothing may come between the two parts
                    self._pace.note_sent(frame)
                    await self._socket.send_text(frame.header)
                    await self._socket.send_bytes(frame.jpeg)
                continue
            if session.finished:
                await asyncio.gather(*self._asked, return_exceptions=True)
                return
            await self._changed.wait()

    async def _send_state(self) -> None:
        session = self._session
        state = {
            "type": "state", "session": session.id, "name": session.name, "live": session.live,
            "paused": session.paused, "ended": session.ended, "finished": session.finished,
            "labels": session.labels,
        }  # fmt: skip
        if state != self._state:
            self._state = state
            await self._send(state)

    async def _hear(self) -> None:
        async for event in received(self._socket):
            try:
                if event.get("text") is None:
                    raise ConfigError("messages are text")
                message = read_message(event["text"])
            except ConfigError as error:
                await self._send(_problem(error))
                continue
            if isinstance(message, Got):
                self._pace.note_got(message.number)
                self._changed.set()
            elif len(self._asked) >= MOST_AT_ONCE:
                await self._send(_problem(BusyError("wait for the answers", 1), message.id))
            else:
                task = asyncio.ensure_future(self._ask(message))
                self._asked.add(task)
                task.add_done_callback(self._asked.discard)

    async def _ask(self, message: Request) -> None:
        try:
            # Goes on where this window is lost: the answer waits until it asks again.
            answer = await asyncio.shield(self._page.answer(message, self._pace))
        except (SamDetectError, OSError) as error:
            await self._send(_problem(error, message.id))
        else:
            await self._send({"type": "answer", "id": message.id, **answer})

    async def _send(self, message: Answer) -> None:
        async with self._sending:
            await self._socket.send_text(json.dumps(message, ensure_ascii=False))


def _problem(error: Exception, key: str | None = None) -> Answer:
    """What went wrong, in the words of RFC 9457."""
    found = problem_of(error)
    return {"type": "problem", "id": key, "status": found["status"], "detail": found["detail"]}


def live_app(session: LiveSession, access: Access, *, most_sockets: int = MOST_SOCKETS) -> Guard:
    """The page of a video, and its WebSocket ``/api/live``."""
    app = application(PAGE)
    app.websocket("/api/live")(LivePage(session, most_sockets).serve)
    return Guard(app, access, public=PAGE)
