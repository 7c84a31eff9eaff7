"""Small models of random weights, so that the parts that run models keep the contracts, too."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint ``sam2`` and a folder ``clip``; nothing where the extra is not installed."""
    try:
        import open_clip  # noqa: F401
        import sam2  # noqa: F401
    except ModuleNotFoundError:
        return {}
    from sam2_helpers import write_small_sam2
    from small_models import clip_folder

    folder = tmp_path_factory.mktemp("models")
    return {"sam2": write_small_sam2(folder, sure=True), "clip": clip_folder(folder / "clip")}
