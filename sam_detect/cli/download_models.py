"""``sam-detect download-models``."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import note, say
from sam_detect.cli.text import escape, show, table
from sam_detect.config import load_settings
from sam_detect.models.catalogue import CLIP_MODELS, SAM2_MODELS, Model
from sam_detect.models.download import (
    Models,
    Obtained,
    Progress,
    is_unfinished,
    models_of,
    obtain,
)
from sam_detect.models.weights import cache_dir, find_weights, models_dir


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
    """Get SAM 2 and CLIP onto this machine: 'base' of both if none is named.

    They go into the shared cache of huggingface_hub (HF_HOME). What is here is checked and not
    downloaded again; what broke off is continued.
    """
    offline = load_settings({"offline": offline}).offline
    if listing and not sam_models and not clip_models:
        _list([*SAM2_MODELS, *CLIP_MODELS], as_json)
        return
    asked = models_of(sam_models, clip_models)
    if listing:
        _list(asked, as_json)
        return
    with Progress(note) as progress:
        done = []
        for each in asked:
            done.append(obtain(each, offline=offline, progress=progress))
            note(_sentence(done[-1]))
    if as_json:
        say(json.dumps({"models": [_described(each) for each in done]}), to=sys.stdout)


def _sentence(done: Obtained) -> str:
    verb = "downloaded" if done.downloaded else "is here"
    size = _megabytes(done.path.stat().st_size)
    how = "is the published one" if done.published else f"{done.sha256} is not published"
    return f"{done.model.name} {verb}: {done.path} ({size} MB; SHA-256 {how})"


def _described(done: Obtained) -> dict[str, Any]:
    return {
        "kind": done.model.kind,
        "name": done.model.name,
        "path": str(done.path),
        "downloaded": done.downloaded,
        "bytes": done.path.stat().st_size,
        "sha256": done.sha256,
        "published": done.published,
    }


def _list(models: Models, as_json: bool) -> None:
    rows = [_row(each) for each in models]
    cache = cache_dir()
    if as_json:
        folders = {"folder": str(models_dir()), "cache": None if cache is None else str(cache)}
        say(json.dumps({**folders, "models": rows}), to=sys.stdout)
        return
    shown_rows = table("model", "short", "MB>", "licence", "state")
    for row in rows:
        cells = (row["name"], *(row["aliases"][:1] or [""]), _megabytes(row["bytes"]),
                 row["licence"] or "its own", row["state"])  # fmt: skip
        shown_rows.add_row(*(escape(cell) for cell in cells))
    show(shown_rows)
    say("Every other MODEL/TAG of open_clip can be downloaded, too.", to=sys.stdout)
    for row in rows:
        if row["state"] == "here":
            say(f"{row['name']}: {row['path']}", to=sys.stdout)


def _row(each: Model) -> dict[str, Any]:
    path = find_weights(each)
    missing = "unfinished" if is_unfinished(each) else "missing"
    return {
        "kind": each.kind,
        "name": each.name,
        "aliases": list(each.aliases),
        "bytes": each.size_bytes if path is None else path.stat().st_size,
        "licence": each.licence,
        "source": each.source,
        "state": missing if path is None else "here",
        "path": str(path or models_dir() / each.folder / each.filenames[0]),
    }


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.0f}" if count >= 1e6 else f"{count / 1e6:.3f}"
