"""The live page over HTTP: its files, and a WebSocket that sends frames and takes names."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from sam_detect import __version__
from sam_detect.errors import ConfigError, NotFoundError, SamDetectError, one_line
from sam_detect.server.access import Access
from sam_detect.server.hidden_paths import reason_of, without_home
from sam_detect.server.http import (
    SOCKET_PROTOCOL,
    Guard,
    answer_problems,
    page_file,
    problem,
    status_of,
)
from sam_detect.server.live import LiveSession, Seen
from sam_detect.server.live_frames import FrameEncoder, Pace, rings
from sam_detect.server.live_messages import (
    Control,
    Got,
    Look,
    Message,
    Name,
    Reject,
    Undo,
    read_message,
)

PAGE = {
    "": ("live.html", "text/html"),
    **{
        f"{name}.js": (f"{name}.js", "text/javascript")
        for name in ("api", "live", "live_line", "live_picture")
    },
    **{f"{name}.css": (f"{name}.css", "text/css") for name in ("page", "live")},
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
"""What the page is made of; nothing else is read from the disk by a name in a request."""
MOST_SOCKETS = 16
"""Windows that may watch at once."""
MOST_AT_ONCE = 8
"""Requests of one window that may be in progress."""
ANSWERS = 256
"""Answers that are kept: what comes again after a lost connection is not done twice."""

Answer = dict[str, Any]


class LivePage:
    """The windows that watch one video.

    Args:
        session: the video.
        most_sockets: further windows are refused.
    """

    def __init__(self, session: LiveSession, most_sockets: int = MOST_SOCKETS) -> None:
        self.session, self.encoder = session, FrameEncoder()
        self._most, self._open = most_sockets, 0
        self._answers: OrderedDict[str, asyncio.Future[Answer]] = OrderedDict()

    async def serve(self, socket: WebSocket) -> None:
        """One window, until it is gone or the video is finished."""
        if SOCKET_PROTOCOL not in socket.scope.get("subprotocols", ()):
            refusal = f"the WebSocket needs the protocol {SOCKET_PROTOCOL}"
            await socket.send_denial_response(problem(400, refusal))
            return
        if self._open >= self._most:
            refusal = f"{self._most} windows watch already: close one"
            await socket.send_denial_response(problem(503, refusal))
            return
        self._open += 1
        try:
            await socket.accept(subprotocol=SOCKET_PROTOCOL)
            await _Window(self, socket).run()
        finally:
            self._open -= 1

    def answer(self, message: Message, pace: Pace) -> asyncio.Future[Answer]:
        """What a request gives; the same one again gives the same answer."""
        key = "" if isinstance(message, Got) else f"{message.type} {message.id}"
        known = self._answers.get(key)
        if known is None:
            known = asyncio.ensure_future(self._do(message, pace))
            self._answers[key] = known
            while len(self._answers) > ANSWERS:
                self._answers.popitem(last=False)
        return known

    async def _do(self, message: Message, pace: Pace) -> Answer:
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
        return {}

    def _seen(self, message: Look | Reject, pace: Pace) -> Seen:
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
        showing = asyncio.ensure_future(self._show())
        hearing = asyncio.ensure_future(self._hear())
        both = {showing, hearing}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leave()
            for task in (*both, *self._asked):
                task.cancel()
            await asyncio.gather(*both, *self._asked, return_exceptions=True)
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
        with suppress(WebSocketDisconnect):
            while True:
                event = await self._socket.receive()
                if event["type"] == "websocket.disconnect":
                    return
                text = event.get("text")
                try:
                    if text is None:
                        raise ConfigError("messages are text")
                    message = read_message(text)
                except ConfigError as error:
                    await self._send(_problem(error))
                    continue
                if isinstance(message, Got):
                    self._pace.note_got(message.number)
                    self._changed.set()
                elif len(self._asked) >= MOST_AT_ONCE:
                    await self._send(_problem(_BusyError("wait for the answers"), message.id))
                else:
                    task = asyncio.ensure_future(self._ask(message))
                    self._asked.add(task)
                    task.add_done_callback(self._asked.discard)

    async def _ask(self, message: Look | Reject | Undo | Control) -> None:
        try:
            # Goes on where this window is lost: the answer waits until it asks again.
            answer = await asyncio.shield(self._page.answer(message, self._pace))
        except SamDetectError as error:
            await self._send(_problem(error, message.id))
        except OSError as error:
            await self._send(
                _problem(_BusyError(f"nothing was changed: {reason_of(error)}"), message.id)
            )
        else:
            await self._send({"type": "answer", "id": message.id, **answer})

    async def _send(self, message: Answer) -> None:
        async with self._sending:
            await self._socket.send_text(json.dumps(message, ensure_ascii=False))


class _BusyError(SamDetectError):
    """It cannot be done now."""


def _problem(error: SamDetectError, key: str | None = None) -> Answer:
    """What went wrong, in the words of RFC 9457."""
    status = 503 if isinstance(error, _BusyError) else status_of(error)
    return {"type": "problem", "id": key, "status": status,
            "detail": without_home(one_line(error))}  # fmt: skip


def live_app(session: LiveSession, access: Access, *, most_sockets: int = MOST_SOCKETS) -> Guard:
    """The page of a video, and its WebSocket ``/api/live``."""
    app = FastAPI(title="sam-detect", version=__version__, docs_url=None, redoc_url=None)
    answer_problems(app)
    page = LivePage(session, most_sockets)

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    app.websocket("/api/live")(page.serve)
    for path, (name, media) in PAGE.items():
        app.get(f"/{path}", include_in_schema=False)(page_file(name, media))
    return Guard(app, access, public=[f"/{path}" for path in PAGE])
