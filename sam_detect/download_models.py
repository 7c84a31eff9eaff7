"""``python -m sam_detect.download_models``, and :func:`download_models` for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

Names = str | Sequence[str] | None


def download_models(
    sam_model: Names = None,
    clip_model: Names = None,
    *,
    offline: bool | None = None,
    progress: bool = True,
) -> dict[str, Path]:
    """Gets SAM 2 and CLIP onto this machine; ``base`` of both if none is named.

    They go into the shared cache of ``huggingface_hub`` (``HF_HOME``). What is here is checked and
    not downloaded again; what broke off is continued.

    Args:
        sam_model: one or several of ``tiny``, ``small``, ``base``, ``large`` (these are SAM 2.1)
            and Meta's own names.
        clip_model: one or several of ``base``, ``large``, ids such as
            ``openai/clip-vit-base-patch32``, and open_clip's ``MODEL/TAG``.
        offline: only check what is here; by default as ``SAM_DETECT_OFFLINE`` says.
        progress: print what is done on stderr.

    Returns:
        Each model's full name and its file.

    Raises:
        UnknownNameError: nothing has this name.
        DownloadError: a file cannot be downloaded, or is not what the hub says.
        UnavailableError: a package that is needed for it is not installed.
        OutputError: the cache cannot be written.
    """
    import click

    from sam_detect.config import load_settings
    from sam_detect.models.download import Progress, models_of, obtain

    offline = load_settings({"offline": offline}).offline
    asked = models_of(_listed(sam_model), _listed(clip_model))
    with Progress(partial(click.echo, err=True) if progress else None) as shown:
        return {each.name: obtain(each, offline=offline, progress=shown).path for each in asked}


def _listed(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


if __name__ == "__main__":
    from sam_detect.cli import main

    main(["download-models", *sys.argv[1:]])
