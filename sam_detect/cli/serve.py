"""``sam-detect serve``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import name_of_library, note, open_detector, say
from sam_detect.server.access import TOKEN, Access, require_server


@click.command(cls=options.Sectioned)
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS",
    help=f"Where it listens. For other machines to reach it, set {TOKEN}, too.",
)  # fmt: skip
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8001, show_default=True,
    help="0 takes a free one.",
)  # fmt: skip
@click.option(
    "--queue", "waiting", type=click.IntRange(1, 10_000), default=64, show_default=True,
    metavar="N", help="Pictures that may wait; further ones are refused with 429.",
)  # fmt: skip
@click.option(
    "--timeout", "seconds", type=click.FloatRange(1, 3600), default=60, show_default=True,
    metavar="SECONDS", help="A request that takes longer is given up.",
)  # fmt: skip
@click.option(
    "--max-upload", "upload_mb", type=click.IntRange(1, 4096), default=64, show_default=True,
    metavar="MB", help="Largest request with pictures.",
)  # fmt: skip
@click.option(
    "--root", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR",
    help="Jobs may name folders of pictures in this one [default: none].",
)  # fmt: skip
@options.settings_options(*options.section("Proposals", "Vectors", "Labels", "Library", "Machine"))
@options.verbose_option
@options.general_options
def serve(
    *,
    host: str,
    port: int,
    waiting: int,
    seconds: float,
    upload_mb: int,
    root: Path | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Detect and learn over HTTP, for other programs.

    \b
      sam-detect serve --library nuts
      curl -F images=@table.jpg http://127.0.0.1:8001/v1/detect
    """
    require_server()
    from sam_detect.server.detecting import Detectors, ServiceLimits, require_no_memory_store
    from sam_detect.server.listening import address_of, listen
    from sam_detect.server.service import run_service

    access = Access.of_environment(host)
    require_no_memory_store(settings)
    limits = ServiceLimits(waiting, seconds, upload_mb << 20)
    detector = open_detector(settings, learns=True)
    if detector.library.manifest() is None:
        note(f"{name_of_library(detector)}: nothing is found before it is taught")
    detectors = Detectors(settings, detector)
    with listen(host, port) as socket:
        address = address_of(socket)
        line = (
            json.dumps({"url": address}) if as_json else f"listening at {address} (Ctrl-C ends it)"
        )
        say(line, to=sys.stdout)
        if access.token is not None:
            note(f"requests need the header Authorization: Bearer, with the value of {TOKEN}")
        sys.stdout.flush()
        run_service(detectors, access, limits, socket, root)
    return 0
