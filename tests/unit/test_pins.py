"""What the scripts install: pinned, with hashes for the base install, from whatever index."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILDS = {
    "hatchling",
    "editables",
    "pathspec",
    "pluggy",
    "trove-classifiers",
    "packaging",
    "tomli",
    "tomlkit",
}


def pins(file: str) -> dict[str, set[str]]:
    """Names to versions, one for each marker."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "scripts" / file).read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", line):
            found.setdefault(match[1], set()).add(match[2])
    return found


def test_the_base_install_has_the_pins_of_all_others_and_a_hash_for_each() -> None:
    base, every = pins("requirements.txt"), pins("constraints.txt")
    assert {name for name in base if name not in every} <= BUILDS
    assert all(base[name] <= every[name] for name in base if name in every)
    assert {"hatchling", "editables", "numpy", "qdrant-edge-py"} <= set(base)
    text = (ROOT / "scripts" / "requirements.txt").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text)
    assert all("--hash=sha256:" in block for block in blocks if "==" in block)


def test_no_list_names_a_package_index() -> None:
    for file in ("requirements.txt", "constraints.txt"):
        text = (ROOT / "scripts" / file).read_text(encoding="utf-8")
        assert not re.search(r"https?://|file://|^-", text, re.MULTILINE), file


def test_the_base_install_needs_what_the_project_says() -> None:
    import sys

    if sys.version_info < (3, 11):
        import tomli as tomllib
    else:
        import tomllib
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[><=\[; ]", each)[0].lower() for each in project["dependencies"]}
    assert names <= set(pins("requirements.txt"))


def test_the_page_on_security_names_the_image_that_is_used() -> None:
    image = re.search(r"image: (\S+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert image is not None
    assert image[1] in (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")
