"""``sam-detect download-models``."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import note, say
from sam_detect.cli.text import escape, show, table
from sam_detect.config import load_settings
from sam_detect.models.obtain import Obtained, Wanted, known, obtain, state, wanted
from sam_detect.models.progress import shown
from sam_detect.models.weights import models_dir


@click.command()
@click.option(
    "--sam-model",
    "sam_models",
    multiple=True,
    metavar="NAME",
    help="A SAM 2 model: tiny, small, base, large (these are SAM 2.1), or Meta's own name; may be "
    "repeated.",
)
@click.option(
    "--clip-model",
    "clip_models",
    multiple=True,
    metavar="NAME",
    help="A CLIP model: base, large, an id such as openai/clip-vit-base-patch32, or MODEL/TAG of "
    "open_clip; may be repeated.",
)
@click.option("--list", "listing", is_flag=True, help="Show what there is, and what is here.")
@click.option(
    "--offline", is_flag=True, default=None, help="Use no network: only check what is here."
)
@options.general_options
def download_models(
    sam_models: tuple[str, ...],
    clip_models: tuple[str, ...],
    *,
    listing: bool,
    offline: bool | None,
    as_json: bool,
) -> None:
    """Get SAM 2 and CLIP onto this machine: of both 'base', where none is named.

    What is here is checked and not fetched again; what broke off is continued.
    """
    settings = load_settings({"offline": offline})
    named = bool(sam_models or clip_models)
    if listing and not named:
        _list(known(settings), as_json)
        return
    asked = wanted(sam_models, clip_models, settings)
    if listing:
        _list(asked, as_json)
        return
    with shown(note) as watcher:
        done = []
        for each in asked:
            done.append(obtain(each, settings, watcher))
            note(_sentence(done[-1]))
    if as_json:
        say(json.dumps({"models": [_described(each) for each in done]}), to=sys.stdout)


def _sentence(done: Obtained) -> str:
    how = "is the published one" if done.record.published else "is recorded"
    if not done.downloaded:
        how = "is right"
    verb = "downloaded" if done.downloaded else "is here"
    return f"{done.name} {verb}: {done.path} ({_megabytes(done.record.bytes)} MB; SHA-256 {how})"


def _described(done: Obtained) -> dict[str, Any]:
    return {
        "kind": done.kind,
        "name": done.name,
        "path": str(done.path),
        "downloaded": done.downloaded,
        "bytes": done.record.bytes,
        "sha256": done.record.sha256,
        "published": done.record.published,
    }


def _list(models: list[Wanted], as_json: bool) -> None:
    rows = [_row(each) for each in models]
    if as_json:
        say(json.dumps({"folder": str(models_dir()), "models": rows}), to=sys.stdout)
        return
    shown_rows = table("model", "short", "MB>", "licence", "state")
    for row in rows:
        cells = (row["name"], *(row["aliases"][:1] or [""]), _megabytes(row["bytes"]),
                 row["licence"] or "its own", row["state"])  # fmt: skip
        shown_rows.add_row(*(escape(cell) for cell in cells))
    show(shown_rows)
    say("Every other MODEL/TAG of open_clip can be had, too.", to=sys.stdout)
    here = [row for row in rows if row["state"] != "missing"]
    say(f"Files are in {models_dir()}{':' if here else ' (none yet)'}", to=sys.stdout)
    for row in here:
        say(f"  {os.path.relpath(row['path'], models_dir())}", to=sys.stdout)


def _row(each: Wanted) -> dict[str, Any]:
    here = state(each)
    return {
        "kind": each.kind,
        "name": each.name,
        "aliases": list(each.aliases),
        "bytes": each.path.stat().st_size if here in ("here", "damaged") else each.size_bytes,
        "licence": each.licence,
        "source": each.source,
        "state": here,
        "path": str(each.path),
    }


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.0f}" if count >= 1e6 else f"{count / 1e6:.3f}"
