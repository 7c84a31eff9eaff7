"""``sam-detect verify-models``."""

from __future__ import annotations

import json
import sys

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import note, say
from sam_detect.cli.text import escape, show, table
from sam_detect.config import load_settings
from sam_detect.models.catalogue import DEFAULT
from sam_detect.registry import needing_extra

WORDS = {True: "right", False: "WRONG", None: ""}


@click.command()
@options.settings_options("sam_model", "clip_model", "device")
@options.general_options
def verify_models(
    sam_model: str | None, clip_model: str | None, *, device: str | None, as_json: bool
) -> int:
    """Check the models on this machine: weights, parity with the official code, speed, quality.

    Ends with 1 where something is not as it must be. Takes a minute or more.
    """
    settings = load_settings({"sam_model": sam_model, "clip_model": clip_model, "device": device})
    with needing_extra("verify-models"):
        from sam_detect.verification import verify
    named = (settings.option(name) or DEFAULT for name in ("sam_model", "clip_model"))
    asked = (*named, settings.device)
    done = []
    for check in verify(*asked):
        done.append(check)
        note(f"{check.name}: done")
    if as_json:
        say(json.dumps({"checks": [check.to_dict() for check in done]}), to=sys.stdout)
    else:
        made = table("check", "found", "")
        for each in done:
            made.add_row(escape(each.name), escape(each.found), WORDS[each.right])
        show(made)
    return int(any(check.right is False for check in done))
