"""``sam-detect annotate``."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import Failures, counted, find_pictures, note, open_detector, say
from sam_detect.server.access import TOKEN, Access, require_server


@click.command(cls=options.Sectioned)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR|GLOB...")
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS",
    help=f"Where the page is served. For other machines to reach it, set {TOKEN}, too.",
)  # fmt: skip
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8000, show_default=True,
    help="0 takes a free one.",
)  # fmt: skip
@options.settings_options(*options.section("Proposals", "Vectors", "Labels", "Library", "Machine"))
@options.verbose_option
@options.general_options
def annotate(
    images: tuple[str, ...], *, host: str, port: int, as_json: bool, **settings: Any
) -> int:
    """Name objects on a page in the browser; the library learns at once.

    \b
      sam-detect annotate photos/ --library nuts
    """
    from sam_detect.server.ui import AnnotationUI

    require_server()
    Access.of_environment(host)  # refused before anything is loaded
    failures = Failures()
    paths = find_pictures(images, failures)
    if not paths:
        return failures.end(paths)

    def started(address: str) -> None:
        if as_json:
            say(json.dumps({"url": address, "pictures": len(paths)}), to=sys.stdout)
        else:
            say(f"{counted(len(paths), 'picture')}: open {address} (Ctrl-C ends it)", to=sys.stdout)
        if os.environ.get(TOKEN):
            note(f"add #token=... with the value of {TOKEN} to the address")

    AnnotationUI(open_detector(settings, learns=True)).run(images, port, host=host, started=started)
    return failures.end(paths)
