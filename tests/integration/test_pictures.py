"""The pictures of the documentation are made by a command, and show what it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.dev import pictures

DOCS = Path(__file__).resolve().parents[2] / "docs"
MOST_BYTES = 150_000
BY_A_BROWSER = {"annotate.webp"}


def test_the_command_makes_the_pictures_of_the_docs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    assert pictures.main(["--to", str(tmp_path)]) == 0
    kept = {path.name for path in (DOCS / "pictures").iterdir()}
    made_here = {path.name for path in tmp_path.glob("*.webp")}
    assert kept - made_here <= BY_A_BROWSER, "a picture that the command does not make"
    for name in made_here:
        made, shown = (Image.open(folder / name) for folder in (tmp_path, DOCS / "pictures"))
        assert made.size == shown.size
        far = np.abs(np.asarray(made, np.int16) - np.asarray(shown, np.int16)).max(axis=2) > 60
        # A page is written in the fonts of its machine.
        most = 0.1 if name in BY_A_BROWSER else 0.01
        assert far.mean() < most, f"{name} is not what ./scripts/pictures makes: run it"
        assert (DOCS / "pictures" / name).stat().st_size < MOST_BYTES


def test_every_picture_of_the_docs_is_there_and_says_what_it_shows() -> None:
    named = set()
    for page in DOCS.glob("*.md"):
        for words, path in re.findall(r"!\[(.*?)\]\((.*?)\)", page.read_text(encoding="utf-8")):
            assert len(words.split()) > 4, f"{page.name}: {path} needs a description"
            assert (page.parent / path).exists(), f"{page.name}: {path} is missing"
            named.add(Path(path).name)
    assert named == {path.name for path in (DOCS / "pictures").iterdir()}
