"""Hostile settings, places and patterns: one line, within 10 s and 500 MB, and nothing changed."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_harness import Command, box_around, in_this_process, measured, saved

from sam_detect.errors import ConfigError, ImageError
from sam_detect.io import find_images
from sam_detect.library.places import collection_of, library_of


@pytest.fixture
def sam(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("SAM_DETECT_HOME", str(home))
    return home


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


# config.toml


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def itself(path: Path) -> None:
    path.symlink_to(path)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(4 << 30)


def dotted(path: Path) -> None:
    path.write_text(".".join("a" * 50_000) + " = 1\n")


def dotted_shorter(path: Path) -> None:
    path.write_text("library" + ".a" * 150 + " = 1\n")


def dotted_header(path: Path) -> None:
    path.write_text("[" + ".".join("a" * 50_000) + "]\n")


def nested(path: Path) -> None:
    path.write_text("library = " + "[" * 100_000 + "\n")


def digits(path: Path) -> None:
    path.write_text("top_k = " + "9" * 100_000 + "\n")


def long_name(path: Path) -> None:
    path.write_text("a" * 100_000 + " = 1\n")


def long_value(path: Path) -> None:
    path.write_text("threshold = '" + "a" * 100_000 + "'\n")


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe" * 1000)


CONFIGS = [
    a_pipe, a_folder, a_device, itself, huge, dotted, dotted_shorter, dotted_header, nested, digits,
    long_name, long_value, no_text,
]  # fmt: skip


@pytest.mark.parametrize("make", CONFIGS, ids=lambda make: make.__name__)
def test_a_hostile_config_is_refused_in_one_short_line(
    sam: Command, home: Path, make: Callable[[Path], None]
) -> None:
    make(home / "config.toml")
    ran = sam("library", "list")
    ran.failed(code=2)
    assert len(ran.err) < 2500


@pytest.mark.alone
@pytest.mark.parametrize("make", [a_pipe, huge, dotted, dotted_header, nested])
def test_a_hostile_config_costs_nothing(home: Path, make: Callable[[Path], None]) -> None:
    make(home / "config.toml")
    measured("library", "list").within(seconds=5, peak_mb=200).failed("config.toml", code=2)


# The home


@pytest.mark.alone
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
@pytest.mark.parametrize("command", ["learn", "detect", "stats", "list"])
def test_a_home_where_nothing_can_be_made(tmp_path: Path, command: str) -> None:
    picture = saved(tmp_path / "a.png")
    given = {
        "learn": ["learn", picture, "--label", "a", "--box", box_around(40, 40)],
        "detect": ["detect", picture, "--library", "nuts"],
        "stats": ["library", "stats"],
        "list": ["library", "list"],
    }[command]
    ran = measured(*given, env={"SAM_DETECT_HOME": "/proc/x"}).within()
    if command == "list":
        assert ran.code == 0
    else:
        ran.failed(code=1 if command == "learn" else ran.code)
        assert ran.code in (1, 2)


# Patterns


def links(folder: Path) -> None:
    saved(folder / "a" / "1.png")
    for name in ("x", "y", "z"):
        (folder / "a" / name).symlink_to(folder / "a")
        (folder / name).symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    (folder / "a" / "loop.png").symlink_to(folder / "a" / "loop.png")


@pytest.mark.alone
@pytest.mark.parametrize("pattern", ["**/*.png", "**/a/**/*.png", "*/*/*/*/*/*/*/*/*.png", "**"])
def test_a_pattern_over_links_to_itself_ends(tmp_path: Path, pattern: str, home: Path) -> None:
    links(tmp_path / "pictures")
    ran = measured("detect", str(tmp_path / "pictures" / pattern), "--segmenter", "naive").within()
    assert ran.out.count("1.png: ") <= 1
    assert len(ran.err.splitlines()) <= 3


def test_a_pattern_finds_what_glob_finds_where_nothing_is_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b/2.png", "b/10.png", "b/c/3.jpg", "b/.h/4.png", ".i/5.png",
                 "d[1]/6.png", ".7.png", "b/c/d/8.PNG", "b/images/9.png",
                 "e f/10.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for pattern in ("*.png", "**/*.png", "b/**/*", "*/*.png", "**/images/*.png", "b/[0-9].png",
                    "**/c/**/*", "d[[]1]/*.png", "./**/2.png", "**/**/*.png", "b/**", "?*/?.png",
                    "b/c/**/*.PNG", ".i/*.png", "*/.h/*.png", f"{tmp_path}/**/*.png", "b//**/*.png",
                    "nowhere/*.png", "a.png/*.png"):  # fmt: skip
        expected = {
            os.path.normpath(path)
            for path in glob.glob(pattern, recursive=True)
            if os.path.isfile(path) and path.lower().endswith((".png", ".jpg"))
        }
        try:
            found = find_images(pattern)
        except ImageError:
            found = []
        assert len(found) == len(set(found))
        assert {os.path.normpath(path) for path in found} == expected, pattern


def test_a_linked_folder_is_found_by_name_and_not_by_two_stars(tmp_path: Path) -> None:
    saved(tmp_path / "there" / "1.png")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "there")
    assert len(find_images(str(tmp_path / "here" / "*" / "*.png"))) == 1
    with pytest.raises(ImageError, match="matches nothing"):
        find_images(str(tmp_path / "here" / "**" / "*.png"))


# Exports


def test_an_export_never_lies_among_the_files_of_a_library(
    sam: Command, home: Path, tmp_path: Path
) -> None:
    picture = saved(tmp_path / "a.png")
    for name in ("nuts", "others"):
        sam("learn", picture, "--label", "a", "--box", box_around(40, 40), "--library", name)
    before = contents(home)
    nuts = home / "libraries" / "nuts"
    (tmp_path / "link").symlink_to(nuts)
    (tmp_path / "link.json").symlink_to(nuts / "library.json")
    for target in (
        nuts / "library.json", nuts / "new.zip", nuts / "shard-1" / "a.zip", nuts / "new" / "a.zip",
        home / "libraries" / "others" / "library.json", tmp_path / "link" / "library.json",
        tmp_path / "link.json",
    ):  # fmt: skip
        sam("library", "export", target, "--library", "nuts").failed("among the files", code=1)
    assert contents(home) == before
    assert not (nuts / "new").exists()
    sam("library", "export", home / "libraries" / "nuts.zip", "--library", "nuts").worked()
    (nuts / "library.json").unlink()
    sam("library", "export", nuts / "b.zip", "--library", "others").failed("among the", code=1)


# Names


def test_each_name_is_one_library(sam: Command, home: Path, tmp_path: Path) -> None:
    picture = saved(tmp_path / "a.png")
    for number, name in enumerate(("default", "sam_detect", "nuts")):
        for label in range(number + 1):
            box = box_around(40 + 80 * label, 40 + 10 * label)
            sam(
                "learn", picture, "--label", name, "--box", box, "--library", name, "--accept-guess"
            ).worked()
    (listed,) = sam("library", "list", "--json").json
    counts = {row["name"]: row["examples"] for row in listed["libraries"]}
    assert counts == {"default": 1, "sam_detect": 2, "nuts": 3}
    # Where it always was.
    assert (home / "libraries" / "sam_detect" / "library.json").exists()
    sam("library", "remove", "--label", "sam_detect", "--library", "sam_detect").worked()
    assert sam("library", "stats", "--json", "--library", "default").json[0]["examples"] == 1


@pytest.mark.parametrize("name", ["default", "sam_detect", "nuts"])
def test_a_name_and_its_collection_belong_to_each_other(name: str) -> None:
    assert library_of(collection_of(name)) == collection_of(library_of(name)) == name
    others = {"default", "sam_detect", "nuts"} - {name}
    assert collection_of(name) not in {collection_of(other) for other in others}


def test_settings_that_are_no_plain_values_are_named(home: Path) -> None:
    from sam_detect.config import load_settings

    (home / "config.toml").write_text("[library]\nname = 'a'\n")
    with pytest.raises(ConfigError, match=r"'library' in .*config.toml must be a text, .* a dict"):
        load_settings()
    (home / "config.toml").write_text("text_labels = ['a', 'b']\ntop_k = 3\n")
    assert load_settings().option("text_labels") == ("a", "b")
