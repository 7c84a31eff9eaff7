"""Fixtures of the tests that drive whole programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.page_harness import draw_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two drawn pictures, for the annotation page."""
    return draw_photos(tmp_path / "photos")


@pytest.fixture
def photo(photos: Path) -> Path:
    """The first of these pictures."""
    return photos / "0.png"
