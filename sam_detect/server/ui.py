"""The annotation page as a program: what ``sam-detect annotate`` and ``AnnotationUI`` run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sam_detect.api import SAMDetect
from sam_detect.config import home_dir
from sam_detect.errors import ImageError
from sam_detect.io import find_images
from sam_detect.server.access import Access, require_server
from sam_detect.server.annotation import AnnotationSession
from sam_detect.server.journal import Journal

if TYPE_CHECKING:
    from sam_detect.server.http import Guard

LEAVE_S = 5.0
"""How long the end waits for work that was done ahead."""
PROPOSALS_KEPT = 512
"""Pictures whose proposals are cached, as compressed outlines."""


class AnnotationUI:
    """The annotation page of one detector.

    Args:
        detector: proposes, names, and keeps what users decide.

    Raises:
        UnavailableError: the extra ``server`` is not installed.
    """

    def __init__(self, detector: SAMDetect) -> None:
        require_server()
        self.detector = detector

    def run(
        self,
        image_directory: str | Path | Sequence[str | Path],
        port: int = 8000,
        *,
        host: str = "127.0.0.1",
        started: Callable[[str], None] = lambda url: print(f"open {url} (Ctrl-C ends it)"),
    ) -> None:
        """Serves the page until Ctrl-C.

        Args:
            image_directory: a folder, a pattern or a picture, or several of them.
            port: 0 takes a free one.
            host: an address that others reach needs a token in ``SAM_DETECT_TOKEN``.
            started: is called with the address of the page.

        Raises:
            ConfigError: the address cannot be used.
            ImageError: there is no picture.
        """
        from sam_detect.server.listening import address_of, listen, run_until_told, server_of

        access = Access.of_environment(host)
        with self.app(image_directory, access) as app, listen(host, port) as socket:
            started(address_of(socket))
            run_until_told(server_of(app), socket)

    @contextmanager
    def app(
        self, image_directory: str | Path | Sequence[str | Path], access: Access
    ) -> Iterator[Guard]:
        """The page as an ASGI application, while the block runs; raises as :meth:`run`."""
        from sam_detect.server.ahead import WorkAhead
        from sam_detect.server.app import annotation_app
        from sam_detect.server.listening import long_running
        from sam_detect.server.survey import Survey

        if isinstance(image_directory, (str, Path)):
            image_directory = [image_directory]
        sources = [str(each) for each in image_directory]
        if not any(_pictures(source) for source in sources):
            raise ImageError(f"there is no picture in {', '.join(sources)}")
        self.detector.pipeline.remember_proposals(PROPOSALS_KEPT)
        with closing(Journal(journal_path(self.detector))) as journal, long_running():
            session, survey = AnnotationSession(self.detector, sources, journal), Survey()
            ahead = WorkAhead(session, survey, session.after)
            ahead.start()
            try:
                yield annotation_app(session, survey, ahead, access)
            finally:
                ahead.stop()
                ahead.join(LEAVE_S)


def journal_path(detector: SAMDetect) -> Path:
    """Where the changes to a detector's library are kept."""
    library = detector.library
    key = hashlib.blake2b(f"{library.store.location}\n{library.name}".encode(), digest_size=12)
    return home_dir() / "annotate" / f"{key.hexdigest()}.sqlite"


def _pictures(source: str) -> Sequence[str]:
    try:
        return list(find_images(source))
    except ImageError:
        return []
