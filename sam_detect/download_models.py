"""``python -m sam_detect.download_models``, and :func:`download_models` for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

Names = str | Sequence[str] | None


def download_models(
    sam_model: Names = None,
    clip_model: Names = None,
    *,
    offline: bool | None = None,
    progress: bool = True,
) -> dict[str, Path]:
    """Gets SAM 2 and CLIP onto this machine; of both ``base``, where none is named.

    What is here is checked and not fetched again; what broke off is continued.

    Args:
        sam_model: one or several of ``tiny``, ``small``, ``base``, ``large`` (these are SAM 2.1)
            and Meta's own names.
        clip_model: one or several of ``base``, ``large``, ids such as
            ``openai/clip-vit-base-patch32``, and open_clip's ``MODEL/TAG``.
        offline: only check what is here; by default as ``SAM_DETECT_OFFLINE`` says.
        progress: say on stderr what is done.

    Returns:
        Each model's full name and its file.

    Raises:
        UnknownNameError: nothing has this name.
        DownloadError: a file cannot be had, or is not what its source says.
        UnavailableError: a package that is needed for it is not installed.
        OutputError: the folder cannot be written.
    """
    from sam_detect.config import load_settings
    from sam_detect.models.obtain import obtain, wanted
    from sam_detect.models.progress import Silent, shown

    settings = load_settings({"offline": offline})
    asked = wanted(_listed(sam_model), _listed(clip_model), settings)
    with shown() if progress else nullcontext(Silent()) as watcher:
        return {each.name: obtain(each, settings, watcher).path for each in asked}


def _listed(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


if __name__ == "__main__":
    from sam_detect.cli import main

    main(["download-models", *sys.argv[1:]])
