"""The page of ``sam-detect video --page``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sam_detect.cli.feedback import note, say
from sam_detect.errors import ConfigError
from sam_detect.server.access import TOKEN, Access, require_server

if TYPE_CHECKING:
    from sam_detect.server.live import LiveSession
    from sam_detect.video.stream import Stream


def check_page(host: str, *, show: bool) -> None:
    """Refuses what cannot be served, before anything is loaded.

    Raises:
        ConfigError: others could reach it without a token; or a window is asked for, too.
        UnavailableError: the extra ``server`` is not installed.
    """
    if show:
        raise ConfigError("--show opens a window, --page a page: leave one of them out")
    require_server()
    Access.of_environment(host)


@contextmanager
def live_page(
    stream: Stream, labels: Iterable[str], host: str, port: int, *, as_json: bool
) -> Iterator[LiveSession]:
    """Serves the page of a stream while the block runs; says where. Raises ``ConfigError`` where
    the address cannot be used."""
    from sam_detect.pipeline.scheduling import short_switch_interval
    from sam_detect.server.listening import served
    from sam_detect.server.live import LiveSession
    from sam_detect.server.live_app import live_app

    session = LiveSession(stream, sorted(set(labels)), paced=not stream.live)
    # Those who watch must not wait for a detection.
    with (
        short_switch_interval(),
        served(live_app(session, Access.of_environment(host)), host, port) as url,
    ):
        if as_json:
            say(json.dumps({"url": url}), to=sys.stdout)
        else:
            note(f"open {url} (Ctrl-C ends it)")
        if os.environ.get(TOKEN):
            note(f"add #token=... with the value of {TOKEN} to the address")
        try:
            yield session
        finally:
            session.finish()  # the page says so, and asks no more
            session.settle()
