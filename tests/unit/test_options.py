"""Each part declares its options once; the command line, files and calls take them from there."""

from __future__ import annotations

import inspect
import itertools
import sys
import types
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from library_helpers import discs
from PIL import Image
from pydantic import BaseModel, Field

from sam_detect import SAMDetect, registry
from sam_detect.cli.app import run
from sam_detect.config import home_dir, known_settings, load_settings
from sam_detect.errors import ConfigError
from sam_detect.models.weights import default_segmenter
from sam_detect.options import ROOMS, SUPPLIED, annotation_of, hint, options_of, parts_with
from sam_detect.parts import arguments, make_embedder, make_segmenter, require_used
from sam_detect.segmentation import NaiveSegmenter
from sam_detect.types import Recipe
from sam_detect.vector_store import MemoryVectorStore

PARTS = [(room, name) for room in ROOMS for name in registry.BUILT_IN[room]]
USUAL = {"segmenter": "naive", "embedder": "average", "fade": "identity", "store": "memory",
         "labeller": "knn"}  # fmt: skip


# What the parts declare


@pytest.mark.parametrize(("room", "name"), PARTS)
def test_every_declared_option_is_a_parameter_with_its_default(room: str, name: str) -> None:
    pytest.importorskip("torch")
    parameters = inspect.signature(registry.load_class(room, name)).parameters
    for option, info in options_of(room, name).model_fields.items():
        parameter = parameters[info.serialization_alias or option]
        assert info.description, option
        if info.default is not None and parameter.default is not None:
            assert info.default == parameter.default, option


@pytest.mark.parametrize("option", sorted({*known_settings()}))
def test_one_name_means_one_thing(option: str) -> None:
    declared = [options_of(*part).model_fields[option] for part in parts_with(option)]
    for info in declared[1:]:
        assert annotation_of(info) == annotation_of(declared[0])
        assert info.description == declared[0].description
        assert info.default == declared[0].default


def test_no_option_is_a_setting_of_all_parts() -> None:
    for room, name in PARTS:
        assert not {*options_of(room, name).model_fields} & {*SUPPLIED, *ROOMS, "library"}


# An option that no chosen part has


LACKING = [
    (option, room, name)
    for option in known_settings()
    for room, name in PARTS
    if parts_with(option)
    and {r for r, _ in parts_with(option)} == {room}
    and option not in options_of(room, name).model_fields
]


@pytest.mark.parametrize(("option", "room", "name"), LACKING)
def test_an_option_that_the_chosen_part_lacks_is_refused_with_those_that_have_it(
    option: str, room: str, name: str
) -> None:
    having = [each for _, each in parts_with(option)]
    words = {"prompts": "blobs", "pooling": "frame", "similar_regions": "off", "forest": "off",
             "negatives": "margin", "dtype": "bf16", "text_none": "a table",
             "occupancies": "0.2,0.4"}  # fmt: skip
    value = words.get(option, 1)
    settings = load_settings({room: name, option: value if option != "text_labels" else "nut"}
                             if not option.endswith(("url", "key", "model", "templates", "labels"))
                             else {room: name, option: "nut"})  # fmt: skip
    with pytest.raises(ConfigError, match=f"{option} is an option of the {room} ") as caught:
        require_used(settings, settings.chosen)
    assert all(repr(each) in str(caught.value) for each in having)
    assert f"here the {room} is '{name}'" in str(caught.value)
    needed = hint(known_settings()[option], "needs")
    if needed:  # its part alone is not enough
        with pytest.raises(ConfigError, match=f"{option} changes nothing without {needed}"):
            require_used(settings, {room: having[0]})
        settings = load_settings({option: value, needed: "http://localhost"})
    require_used(settings, {room: having[0]})


def test_there_are_such_options() -> None:
    assert {("points_per_side", "segmenter", "naive"), ("decay", "fade", "gaussian"),
            ("text_labels", "labeller", "knn"), ("qdrant_url", "store", "memory"),
            ("pooling", "embedder", "clip")} <= set(LACKING)  # fmt: skip


@pytest.mark.parametrize(
    ("room", "option"),
    [("segmenter", {"min_area": 5}), ("fade_strategy", {"sigma": 3.0}), ("labeller", {"top_k": 3}),
     ("vector_store", {"lock_timeout_s": 1.0})],
)  # fmt: skip
def test_an_option_of_a_part_that_was_given_as_an_object_is_refused(
    room: str, option: dict[str, Any]
) -> None:
    given = {"segmenter": NaiveSegmenter(), "fade_strategy": "gaussian", "labeller": "knn",
             "vector_store": MemoryVectorStore(), "embedder": "average"}  # fmt: skip
    classes = {"fade_strategy": ("fade", "linear"), "labeller": ("labeller", "knn")}
    if room in classes:
        given[room] = registry.load_class(*classes[room])()
    with pytest.raises(ConfigError, match=r"is an object \(set it there\): leave it out"):
        SAMDetect(**given, **option)


@pytest.mark.parametrize(
    "words",
    [["--segmenter", "naive", "--points-per-side", "8"], ["--fade", "linear", "--sigma", "3"],
     ["--decay", "0.5"], ["--text-weight", "0.5"], ["--store", "memory", "--qdrant-url", "h:1"],
     ["--embedder", "average", "--pooling", "crop"]],
)  # fmt: skip
def test_a_command_refuses_an_option_of_another_part(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "discs.png"
    Image.fromarray(discs()).save(path)
    assert run([str(path), *words]) == 2
    [error] = [each for each in capfd.readouterr().err.splitlines() if each.startswith("error")]
    assert " is an option of the " in error
    assert "leave it out, or choose that part" in error


def test_a_library_command_refuses_an_option_of_another_store(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run(["library", "stats", "--store", "memory", "--lock-timeout-s", "3"]) == 2
    assert "lock_timeout_s is an option of the store 'qdrant'" in capfd.readouterr().err


# Files and the environment serve many runs


def write_config(text: str) -> Path:
    home_dir().mkdir(parents=True, exist_ok=True)
    path = home_dir() / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_option_of_another_part_in_a_file_stops_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    write_config("points_per_side = 8\ndecay = 0.5\ntext_weight = 0.5\npooling = 'frame'\n")
    monkeypatch.setenv("SAM_DETECT_PROMPTS", "blobs")
    used = SAMDetect(**{**USUAL, "fade_strategy": USUAL["fade"], "vector_store": USUAL["store"]}
                     | {"fade": None, "store": None})  # fmt: skip
    assert used.recipe.fade == "identity"


def test_an_option_in_a_file_counts_where_its_part_is_used() -> None:
    write_config("min_area = 77\nmax_distance = 9.0\n")
    used = SAMDetect(segmenter="naive", embedder="average", fade_strategy="linear",
                     vector_store="memory")  # fmt: skip
    assert isinstance(used.segmenter, NaiveSegmenter)
    assert used.segmenter.min_area == 77
    assert used.recipe.fade_params["max_distance"] == 9.0


# Parts of other packages

MODULE = """
from pydantic import BaseModel, Field
import numpy as np
from sam_detect.embedding import AverageEmbedder
from sam_detect.interfaces import Labeller, Segmenter, Sink
from sam_detect.segmentation import NaiveSegmenter
from sam_detect.types import Classification
from sam_detect.vector_store import MemoryVectorStore

made = []

class Seg(NaiveSegmenter):
    class Options(BaseModel):
        coarse: int = Field(3, ge=1, le=9, description="How coarse.")

    def __init__(self, coarse=3):
        super().__init__()
        made.append(("seg", coarse))

class Fade:
    def __init__(self, strength: float = 2.0, soft: bool = False):
        self.strength = strength
        made.append(("fade", strength, soft))

    def apply(self, image, mask, distance_map):
        return image

class Emb(AverageEmbedder):
    name = "theirs"

    def __init__(self, bins: int = 4):
        self.bins = bins
        made.append(("emb", bins))

    def parameters(self):
        return {"bins": self.bins}

class Lab(Labeller):
    def __init__(self, always: str = "thing"):
        self.always = always

    def label(self, vectors, memory, **others):
        return [Classification(self.always, self.always, 1.0)] * len(vectors)

class Store(MemoryVectorStore):
    def __init__(self, collection_name, shelves: int = 1):
        super().__init__()
        made.append(("store", collection_name, shelves))

class Out(Sink):
    def __init__(self, output, multiple=False):
        self.path = output

    def write(self, frame, detections):
        self.path.write_text(" ".join(str(each.label) for each in detections))

    def close(self):
        return [self.path]

class Shelf(NaiveSegmenter):
    def __init__(self, library: int = 3):
        super().__init__()

class Nothing:
    pass

class NeedsMuch(NaiveSegmenter):
    def __init__(self, table):
        super().__init__()
"""
COUNT = itertools.count()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the working directory, with a part for each room."""
    name = f"theirs_{next(COUNT)}"
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.py").write_text(MODULE)
    Image.fromarray(discs()[..., ::-1]).save(tmp_path / "discs.png")
    yield name
    sys.modules.pop(name, None)


def made(module: str) -> dict[str, Any]:
    """What the module's parts were made with, by their names."""
    return {name: rest for name, *rest in sys.modules[module].made}


def test_every_part_may_be_a_class_of_the_users_own_with_its_options(
    module: str, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = {"segmenter": "Seg", "fade": "Fade", "embedder": "Emb", "labeller": "Lab",
             "store": "Store", "format": "Out"}  # fmt: skip
    named = [word for room, each in parts.items() for word in (f"--{room}", f"{module}:{each}")]
    own = ["--coarse", "5", "--strength", "7", "--soft", "true", "--bins=8", "--always", "date",
           "--shelves", "2"]  # fmt: skip
    code = run(["detect", "discs.png", "--output", "found.txt", *named, *own])
    assert code == 0, capfd.readouterr().err
    assert made(module) == {"seg": [5], "fade": [7.0, True], "emb": [8],
                            "store": ["sam_detect", 2]}  # fmt: skip
    assert set(Path("found.txt").read_text().split()) == {"date"}


def test_a_library_command_takes_a_store_of_the_users_own_with_its_options(
    module: str, capfd: pytest.CaptureFixture[str]
) -> None:
    place = ["--store", f"{module}:Store", "--shelves", "3"]
    assert run(["library", "stats", *place]) == 2
    assert "No such option" not in capfd.readouterr().err
    assert made(module)["store"] == ["sam_detect", 3]


def test_own_options_are_shown_in_the_help_of_a_command_that_names_the_part(
    module: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["detect", "--segmenter", f"{module}:Seg", "--help-all"]) == 0
    shown = capfd.readouterr().out
    assert "--coarse N" in shown
    assert "How coarse." in shown
    assert run(["detect", "--help-all"]) == 0
    assert "--coarse" not in capfd.readouterr().out
    assert run(["detect", "--segmenter", f"{module}:Missing", "--help"]) == 0


def test_own_options_are_checked(module: str, capfd: pytest.CaptureFixture[str]) -> None:
    own = ["discs.png", "--store", "memory", "--segmenter", f"{module}:Seg"]
    assert run([*own, "--coarse", "10"]) == 2
    assert "coarse: input should be less than or equal to 9, got 10" in capfd.readouterr().err
    assert run([*own, "--strength", "3"]) == 2
    assert "No such option '--strength'" in capfd.readouterr().err
    assert run([*own, "--points-per-side", "3"]) == 2
    said = capfd.readouterr().err
    assert f"option of the segmenter 'sam2', and here the segmenter is '{module}:Seg'" in said


def test_own_options_come_from_files_and_the_environment(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(f"segmenter = '{module}:Seg'\ncoarse = 4\n")
    make_segmenter(load_settings())
    assert made(module)["seg"] == [4]
    monkeypatch.setenv("SAM_DETECT_COARSE", "6")
    make_segmenter(load_settings())
    assert made(module)["seg"] == [6]
    make_segmenter(load_settings({"coarse": 7}))
    assert made(module)["seg"] == [7]
    settings = load_settings({"segmenter": "naive"})
    assert isinstance(make_segmenter(settings), NaiveSegmenter), "the file is for other runs, too"
    write_config("coarse = 4\n")
    with pytest.raises(ConfigError, match="there is no setting 'coarse'"):
        load_settings({"segmenter": "naive"})


def test_a_file_that_names_a_part_imports_nothing_for_a_run_without_it(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SAM_DETECT_TEST_DATA", raising=False)
    write_config(f"segmenter = '{module}:Seg'\n")
    load_settings()
    assert run(["library", "list", "--store", "memory"]) in (0, 2)
    assert module not in sys.modules


def test_a_setting_of_all_parts_is_no_option_of_one(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAM_DETECT_OTHER", "1")  # may be an option of the part
    settings = load_settings({"segmenter": f"{module}:Shelf", "library": "nuts"})
    assert settings.library == "nuts"
    assert not settings.options


@pytest.mark.usefixtures("module")
def test_a_part_that_cannot_be_loaded_stops_only_the_runs_that_use_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_config("fade = 'nowhere.fades:Gone'\n")
    monkeypatch.setenv("SAM_DETECT_OTHER", "1")
    assert load_settings().fade == "nowhere.fades:Gone"
    assert run(["discs.png", "--store", "memory", "--fade", "linear"]) == 0
    capfd.readouterr()
    assert run(["discs.png", "--store", "memory"]) == 2
    assert "the fade 'nowhere.fades:Gone' cannot be loaded" in capfd.readouterr().err
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_settings({"strength": 3})


@pytest.mark.parametrize(
    ("name", "said"),
    [("Nothing", r"a segmenter is a name or a Segmenter with propose\(frame, hints\)"),
     ("NeedsMuch", r"cannot be made: .* missing 1 required positional argument: 'table'"),
     ("made", "is no class that can be made")],
)  # fmt: skip
def test_a_class_that_is_no_such_part_is_refused(module: str, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_segmenter(load_settings({"segmenter": f"{module}:{name}"}))


class Advertised(NaiveSegmenter):
    """A segmenter of another package."""

    class Options(BaseModel):
        depth: int = Field(2, ge=1, description="How deep.")

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.depth = depth


@pytest.fixture
def advertised(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package has the segmenter ``deep``."""
    found = types.ModuleType("advertised_segmenters")
    found.Advertised = Advertised  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "advertised_segmenters", found)
    entry = EntryPoint("deep", "advertised_segmenters:Advertised", "sam_detect.segmenter")

    def select(*, group: str, name: str | None = None) -> list[EntryPoint]:
        return [entry] if group == entry.group and name in (None, "deep") else []

    monkeypatch.setattr(registry, "entry_points", select)


@pytest.mark.usefixtures("advertised")
def test_an_installed_part_brings_its_options(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "discs.png"
    Image.fromarray(discs()).save(path)
    assert run([str(path), "--store", "memory", "--segmenter", "deep", "--depth", "0"]) == 2
    assert "depth: input should be greater than or equal to 1" in capfd.readouterr().err
    assert run([str(path), "--store", "memory", "--segmenter", "deep", "--depth", "3"]) == 0
    write_config("depth = 5\n")
    assert arguments("segmenter", "naive", load_settings({"segmenter": "naive"}))
    assert arguments("segmenter", "deep", load_settings({"segmenter": "deep"})) == {"depth": 5}


def test_an_embedder_that_is_named_again_gets_its_stored_options(module: str) -> None:
    named = {"segmenter": "naive", "embedder": f"{module}:Emb"}
    store = MemoryVectorStore()
    taught = SAMDetect(**named, vector_store=store, bins=8)
    taught.add_example(discs(), "nut")
    assert taught.recipe.model == {"bins": 8}
    again = SAMDetect(**named, vector_store=store)
    assert made(module)["emb"] == [8]
    again.add_example(discs(seed=1), "nut")
    assert SAMDetect(**named, vector_store=store, bins=2).recipe.model == {"bins": 2}


def test_a_library_of_an_embedder_without_weights_gets_the_segmenter_without_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sam_detect.models.weights.available_sam2", lambda name: True)
    monkeypatch.setattr("sam_detect.models.weights.find_spec", lambda name: sys)
    recipe = SAMDetect(embedder="average", vector_store="memory", segmenter="naive").recipe
    theirs: dict[str, Any] = {**recipe.to_dict(), "embedder": "theirs"}
    assert default_segmenter(None) == "sam2"
    assert default_segmenter(recipe) == "naive"
    assert default_segmenter(Recipe(**theirs)) == "naive"
    assert default_segmenter(Recipe(**{**theirs, "model": {"digest": "0" * 16}})) == "sam2"
    assert default_segmenter(Recipe(**{**theirs, "embedder": "clip"})) == "sam2"


def test_the_device_goes_to_parts_that_take_one() -> None:
    assert make_embedder("average", {}, "cuda").name == "average"
