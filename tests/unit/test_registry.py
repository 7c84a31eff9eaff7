"""Names to parts: what is found, what is not, and what a user reads then."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from sam_detect import registry
from sam_detect.config import load_settings
from sam_detect.errors import ConfigError, UnavailableError, UnknownNameError
from sam_detect.fading.fades import GaussianFade
from sam_detect.parts import describe_fade, fade_asked_for, make_fade, require_fade

PROMISED = {
    "segmenter": {"naive"},
    "fade": {"identity", "gaussian", "linear", "exponential", "blur"},
    "embedder": {"average", "appearance"},
    "store": {"memory", "qdrant"},
    "labeller": {"knn", "prototype"},
    "format": {"json", "jsonl", "coco", "csv", "overlay"},
}


def one_line_of(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize("room", sorted(PROMISED))
def test_every_promised_name_is_registered(room: str) -> None:
    assert set(registry.names(room)) >= PROMISED[room]


@pytest.mark.parametrize(
    ("room", "name"), [(room, name) for room in sorted(PROMISED) for name in registry.names(room)]
)
def test_every_registered_name_leads_to_a_class(room: str, name: str) -> None:
    assert isinstance(registry.load_class(room, name), type)


def test_a_name_gives_the_class_that_its_module_holds() -> None:
    assert registry.load_class("fade", "gaussian") is GaussianFade


@pytest.mark.parametrize(
    ("room", "wrong", "meant"),
    [
        ("fade", "gausian", "gaussian"),
        ("embedder", "apearance", "appearance"),
        ("store", "quadrant", "qdrant"),
        ("labeller", "knnn", "knn"),
        ("segmenter", "naiv", "naive"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_and_all(
    room: str, wrong: str, meant: str
) -> None:
    with pytest.raises(UnknownNameError) as caught:
        registry.load_class(room, wrong)
    message = one_line_of(caught.value)
    assert f"no {room} is named '{wrong}'" in message
    assert f"did you mean '{meant}'?" in message
    assert all(name in message for name in registry.names(room))


def test_a_name_like_no_other_is_answered_without_a_guess() -> None:
    with pytest.raises(UnknownNameError) as caught:
        registry.load_class("fade", "zzzzzz")
    assert "did you mean" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("room", "name", "package"),
    [
        ("embedder", "clip", "open_clip"),
        ("embedder", "sam2", "torch"),
        ("segmenter", "sam2", "sam2"),
    ],
)
def test_a_part_whose_package_is_missing_names_the_extra(
    room: str, name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = registry.BUILT_IN[room][name].partition(":")[0]
    # Importing it again would leave the package without the modules of the first import.
    models = importlib.import_module("sam_detect.models")
    monkeypatch.setattr("sam_detect.models", models)
    for loaded in [each for each in sys.modules if each.startswith("sam_detect.models")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnavailableError, match=r"pip install 'sam-detect\[models\]'") as caught:
        registry.load_class(room, name)
    assert package in one_line_of(caught.value)


@pytest.mark.parametrize("package", ["segmentation", "embedding", "fading", "labelling"])
def test_a_class_that_nobody_made_is_an_import_error(package: str) -> None:
    room = importlib.import_module(f"sam_detect.{package}")
    with pytest.raises(AttributeError, match="no 'NoSuchClass'"):
        _ = room.NoSuchClass
    assert not hasattr(room, "NoSuchClass")


def test_a_rooms_package_offers_its_classes_by_name() -> None:
    from sam_detect import fading

    assert fading.GaussianFade is GaussianFade


# package.module:Class


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory of its own; modules imported from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


FADE = """
class MyFade:
    def __init__(self, strength=2.0):
        self.strength = strength

    def apply(self, image, mask, distance_map):
        return image

class NoFade:
    pass
"""


def test_a_custom_class_is_found_in_the_working_directory(workplace: Path) -> None:
    (workplace / "wp_fades.py").write_text(FADE)
    before = list(sys.path)
    found = registry.load_custom("fade", "wp_fades:MyFade")
    assert found.__name__ == "MyFade"
    assert Path(sys.modules["wp_fades"].__file__ or "").parent == workplace
    assert sys.path == before


def test_nothing_in_the_working_directory_stands_for_an_installed_module(
    workplace: Path,
) -> None:
    assert "pyclbr" not in sys.modules
    (workplace / "pyclbr.py").write_text("raise RuntimeError('not the one of Python')")
    (workplace / "wp_uses.py").write_text("import pyclbr\n" + FADE)
    assert registry.load_custom("fade", "wp_uses:MyFade")().strength == 2.0
    assert workplace not in Path(sys.modules["pyclbr"].__file__ or "").parents


def test_a_custom_class_is_found_in_a_package(workplace: Path) -> None:
    (workplace / "wp_package").mkdir()
    (workplace / "wp_package" / "__init__.py").write_text("")
    (workplace / "wp_package" / "fades.py").write_text(FADE)
    assert registry.load_custom("fade", "wp_package.fades:MyFade")().strength == 2.0


def test_a_custom_fade_takes_its_own_parameters_only(workplace: Path) -> None:
    (workplace / "wp_params.py").write_text(FADE)
    assert vars(make_fade("wp_params:MyFade", {"strength": 3.0})) == {"strength": 3.0}
    with pytest.raises(ConfigError, match=r"has no sigma .*strength"):
        make_fade("wp_params:MyFade", {"sigma": 3.0})
    with pytest.raises(ConfigError, match=r"apply\(image, mask, distance_map\)"):
        make_fade("wp_params:NoFade")


BROKEN = {
    "raises": "raise RuntimeError('not\\ntoday')",
    "lacks": "import a_module_that_nobody_has",
    "syntax": "def (:",
    "zero": "1 / 0",
    "attribute": "import os; os.no_such_thing",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_custom_module_that_cannot_be_imported_is_named(workplace: Path, kind: str) -> None:
    (workplace / f"wp_broken_{kind}.py").write_text(BROKEN[kind])
    before = list(sys.path)
    with pytest.raises(ConfigError, match=f"'wp_broken_{kind}:MyFade' cannot be loaded"):
        registry.load_custom("fade", f"wp_broken_{kind}:MyFade")
    assert sys.path == before


@pytest.mark.parametrize("path", ["wp_nowhere:MyFade", "wp_nowhere.deeper:MyFade", "os:MyFade"])
def test_a_custom_class_that_is_not_there_is_named(workplace: Path, path: str) -> None:
    before = list(sys.path)
    with pytest.raises(ConfigError, match=f"the fade '{path}' cannot be loaded"):
        registry.load_custom("fade", path)
    assert sys.path == before


@pytest.mark.parametrize("path", ["MyFade", ":MyFade", "module:", ":", ""])
def test_a_custom_name_of_another_form_says_the_form(path: str) -> None:
    with pytest.raises(ConfigError, match=r"package\.module:Class"):
        registry.load_custom("fade", path)


def test_a_custom_module_may_change_sys_path(workplace: Path) -> None:
    (workplace / "wp_meddler.py").write_text(
        "import sys\nsys.path.pop()\n" + FADE, encoding="utf-8"
    )
    assert registry.load_custom("fade", "wp_meddler:MyFade").__name__ == "MyFade"


# Entry points


class OtherFade:
    def apply(self, image: Any, mask: Any, distance_map: Any) -> Any:
        return image


@pytest.fixture
def advertise(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the registry see these entry points (and no others)."""
    module = types.ModuleType("advertised_parts")
    module.OtherFade = OtherFade  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "advertised_parts", module)

    def set_entry_points(*found: EntryPoint) -> None:
        def select(*, group: str, name: str | None = None) -> list[EntryPoint]:
            return [e for e in found if e.group == group and name in (None, e.name)]

        monkeypatch.setattr(registry, "entry_points", select)

    return set_entry_points


def entry(name: str, value: str = "advertised_parts:OtherFade", room: str = "fade") -> EntryPoint:
    return EntryPoint(name=name, value=value, group=f"sam_detect.{room}")


def test_an_entry_point_is_a_name_like_any_other(advertise: Callable[..., None]) -> None:
    advertise(entry("zebra"), entry("aqua"), entry("elsewhere", room="embedder"))
    assert registry.names("fade") == [*registry.BUILT_IN["fade"], "aqua", "zebra"]
    assert registry.names("embedder")[-1] == "elsewhere"
    assert registry.load_class("fade", "zebra") is OtherFade
    assert isinstance(make_fade("aqua"), OtherFade)
    with pytest.raises(UnknownNameError, match="did you mean 'zebra'"):
        registry.load_class("fade", "zebbra")


def test_an_entry_point_cannot_take_a_built_in_name(advertise: Callable[..., None]) -> None:
    advertise(entry("gaussian"))
    assert registry.load_class("fade", "gaussian") is GaussianFade
    assert registry.names("fade").count("gaussian") == 1


def test_two_packages_of_one_name_are_one_name(advertise: Callable[..., None]) -> None:
    advertise(entry("twice"), entry("twice"))
    assert registry.names("fade").count("twice") == 1


@pytest.mark.parametrize("value", ["no_such_module:Fade", "advertised_parts:Missing"])
def test_an_entry_point_that_cannot_be_loaded_is_named(
    advertise: Callable[..., None], value: str
) -> None:
    advertise(entry("broken", value))
    with pytest.raises(ConfigError, match="'broken' cannot be loaded"):
        registry.load_class("fade", "broken")


# What a fade is called in a recipe


@pytest.mark.parametrize("name", sorted(registry.BUILT_IN["fade"]))
def test_a_built_in_fade_is_described_so_that_it_can_be_made_again(name: str) -> None:
    fade = make_fade(name)
    assert describe_fade(make_fade(*describe_fade(fade))) == describe_fade(fade)
    assert describe_fade(fade)[0] == name


def test_an_advertised_fade_is_described_by_its_name(advertise: Callable[..., None]) -> None:
    advertise(entry("zebra"))
    assert describe_fade(OtherFade()) == ("zebra", {})


def test_a_custom_fade_is_described_by_its_class(workplace: Path) -> None:
    (workplace / "wp_described.py").write_text(FADE)
    fade = make_fade("wp_described:MyFade", {"strength": 4.0})
    assert describe_fade(fade) == ("wp_described:MyFade", {"strength": 4.0})


@pytest.mark.parametrize("thing", [None, "gaussian", 5, object(), type("F", (), {"apply": 3})()])
def test_what_has_no_apply_is_no_fade(thing: Any) -> None:
    with pytest.raises(ConfigError, match="apply"):
        require_fade(thing)


def test_the_settings_ask_for_a_fade_only_where_they_name_one() -> None:
    assert fade_asked_for(load_settings()) is None
    assert fade_asked_for(load_settings({"sigma": 3.0})) == ("gaussian", {"sigma": 3.0})
    asked = fade_asked_for(load_settings({"fade": "linear", "max_distance": 9.0}))
    assert asked == ("linear", {"max_distance": 9.0})
