"""docs/public.md lists what users can rely on: all of it is there, and the package's own names are
listed; the licences of the weights are in the package."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import sam_detect

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "public.md").read_text(encoding="utf-8")
ROWS = re.findall(r"(?m)^\| `(sam_detect[\w.]*)` \| (.+) \|$", PAGE)
LISTED = [(module, name) for module, names in ROWS for name in re.findall(r"`(\w+)`", names)]


@pytest.mark.parametrize(("module", "name"), LISTED)
def test_a_listed_name_is_there_and_says_what_it_is(module: str, name: str) -> None:
    if name in ("CLIPEmbedder", "SAM2Embedder", "SAM2Segmenter"):
        pytest.importorskip("torch")
    found = getattr(importlib.import_module(module), name)
    assert found.__doc__ or name == "Client", f"{module}.{name} has no docstring"


def test_all_names_of_the_package_are_listed() -> None:
    assert {name for module, name in LISTED if module == "sam_detect"} == {*sam_detect._EXPORTS}
    for page in ("CHANGELOG.md", "public.md"):
        assert f"docs/{page}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_licences_of_the_weights_are_in_the_package() -> None:
    text = (Path(sam_detect.__file__).parent / "models" / "LICENSES.md").read_text("utf-8")
    assert all(
        name in text for name in ("EfficientNet-Lite0", "SAM 2", "CLIP", "Apache-2.0", "MIT")
    )
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"sam_detect/models/LICENSES.md"' in declared
