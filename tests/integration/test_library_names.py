"""Libraries are called what their users call things: with spaces, umlauts, any letters."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from cli_harness import DISCS, Command, box_around, in_this_process, saved

from sam_detect.library.places import collection_of, library_of
from sam_detect.vector_store._files import NAME_PATTERN

NAMES = ["Nüsse Tag 1", "果物", "a b", "n--a", "n--", "ß.x", "x (2)", "50 %", "O'Neill", "a+b_c"]
PLAIN = ["nuts", "default", "sam_detect", "v1.2_x-y", "N-1"]


@pytest.fixture
def sam(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


@pytest.mark.parametrize("name", [*NAMES, *PLAIN])
def test_each_name_is_one_collection_and_back(name: str) -> None:
    collection = collection_of(name)
    assert NAME_PATTERN.fullmatch(collection)
    assert library_of(collection) == name
    assert (collection == name) == (name in ("nuts", *PLAIN[3:]))
    others = {collection_of(each) for each in (*NAMES, *PLAIN) if each != name}
    assert collection not in others


def test_one_name_in_two_forms_of_unicode_is_one_library() -> None:
    assert collection_of("Nu\u0308sse") == collection_of("Nüsse")


@pytest.mark.parametrize(
    "name", ["", " a", "a ", "a/b", "..", "a\\b", "a\nb", "\u202eb", "\ud800", "ü" * 60]
)
def test_what_is_no_name_is_refused(sam: Command, tmp_path: Path, name: str) -> None:
    picture = saved(tmp_path / "x.png")
    learn = ("learn", picture, "--label", "disc", "--box", box_around(*DISCS[0]))
    ran = sam(*learn, "--embedder", "average", "--library", name)
    assert ran.code == 2, ran.err
    assert "library" in ran.errors[0]


@pytest.mark.parametrize("foreign", ["n--zz", "n--_c3", "n--_zz", "n--A_41"])
def test_collections_of_others_keep_their_names(foreign: str) -> None:
    assert library_of(foreign) == foreign


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_library_with_such_a_name_from_beginning_to_end(
    sam: Command, tmp_path: Path, name: str
) -> None:
    picture, archive = saved(tmp_path / "x.png"), tmp_path / "library.zip"
    place = ("--library", name)
    learn = ("learn", picture, "--label", "Süßes", "--box", box_around(*DISCS[0]))
    sam(*learn, *place, "--embedder", "average").worked()
    [listed] = sam("library", "list", "--json").worked().json
    assert [each["name"] for each in listed["libraries"]] == [name]
    [found] = sam("detect", picture, *place, "--json").worked().json
    assert "Süßes" in {each["label"] for each in found["detections"]}
    said = sam("detect", picture, *place, "--fade", "linear").worked().err
    command = shlex.split(said[said.index("sam-detect library reindex") :].splitlines()[0])[1:]
    assert command[command.index("--library") + 1] == name
    sam(*command).worked()
    sam("library", "export", archive, *place).worked()
    sam("library", "remove", "--all", "--yes", *place).worked()
    sam("library", "import", archive).worked()
    [stats] = sam("library", "stats", *place, "--json").worked().json
    assert (stats["library"], stats["examples"]) == (name, 1)
    sam("detect", picture, "--library", name + "x").failed(f"did you mean '{name}'", code=2)
