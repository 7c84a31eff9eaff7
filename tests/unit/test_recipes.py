"""What a recipe may say of a model: names and digests, and nothing that could be loaded."""

from __future__ import annotations

from typing import Any

import pytest

from sam_detect.config import Settings
from sam_detect.errors import RecipeMismatchError
from sam_detect.interfaces import Embedder
from sam_detect.models.catalogue import META_CONFIGS, checked_model, names_a_place
from sam_detect.pipeline.choosing import choose_features
from sam_detect.registry import BUILT_IN, load_class
from sam_detect.types import Recipe

DIGEST = "0123456789abcdef"


def recipe(**changes: Any) -> Recipe:
    parts: dict[str, Any] = {
        "embedder": "average", "embedder_version": 1, "model": {}, "fade": "gaussian",
        "fade_params": {}, "occupancy": 0.2, "crop_side": 256, "crop_version": 1, "dimension": 2,
    }  # fmt: skip
    return Recipe(**{**parts, **changes})


@pytest.mark.parametrize(
    "value",
    [
        "/etc/passwd",
        "a/b",
        "..",
        "./m.pt",
        "~/m.pt",
        "C:\\m.pt",
        "https://a.b/c",
        "os:system",
        ".x",
    ],
)
def test_a_text_that_may_be_a_place_is_found(value: str) -> None:
    assert names_a_place({"size": 3, "model": value}) == "model"
    assert names_a_place({"models": ["plain", value]}) == "models"


def test_plain_values_are_no_places() -> None:
    plain = {
        "a": "vits14",
        "b": "base plus",
        "c": 1.5,
        "d": None,
        "e": ["x", 2],
        "f": "1.0",
        "g": True,
    }
    assert names_a_place(plain) is None


@pytest.mark.parametrize("name", ["sam2", "clip"])
def test_a_path_of_an_older_version_is_a_files_name(name: str) -> None:
    key = {"sam2": "model_size", "clip": "model_name"}[name]
    for path in ("/home/me/models/cells.pt", "C:\\models\\cells.pt", "cells.pt"):
        found = checked_model(name, {key: path, "digest": DIGEST})
        assert found == {"file": "cells.pt", "digest": DIGEST}


def test_a_config_of_metas_that_an_older_version_wrote_down_is_the_only_one_there_is() -> None:
    model = {"file": "cells.pt", "digest": DIGEST, "pooling": "crop"}
    assert checked_model("sam2", {**model, "config_digest": META_CONFIGS[0]}) == model
    other = {**model, "config_digest": "0" * 16}
    assert checked_model("sam2", other) == other


def test_names_of_the_catalogue_stay() -> None:
    for name, model in (
        ("sam2", {"model_size": "sam2.1_hiera_tiny", "digest": DIGEST, "pooling": "frame"}),
        ("clip", {"model_name": "ViT-B-32/openai", "digest": DIGEST, "dtype": "bf16"}),
        ("average", {}),
    ):
        assert checked_model(name, model) == model


def test_the_name_of_a_file_is_no_difference_and_its_digest_is() -> None:
    mine = recipe(model={"file": "a.pt", "digest": DIGEST})
    assert mine == recipe(model={"file": "b.pt", "digest": DIGEST})
    assert mine != recipe(model={"file": "a.pt", "digest": DIGEST[::-1]})
    assert mine != recipe(model={"file": "a.pt", "digest": DIGEST}, occupancy=0.3)
    assert recipe(model={"file": "a.pt"}) != recipe(model={"file": "b.pt"}), "nothing else tells"


class Plugin(Embedder):
    """A user's embedder, which would load what its parameter names."""

    name, version, input_side, dimension = "plugin", 1, 32, 2
    loaded: list[str] = []  # noqa: RUF012

    def __init__(self, weights: str = "standard") -> None:
        self.loaded.append(weights)

    def embed(self, crops: Any) -> Any:
        raise NotImplementedError

    def parameters(self) -> dict[str, Any]:
        return {"weights": self.loaded[-1]}


@pytest.mark.parametrize("asked", ["auto", "plugin"])
def test_an_embedder_of_another_package_gets_no_path_of_a_recipe(
    monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    known = {**BUILT_IN["embedder"], "plugin": f"{__name__}:Plugin"}
    monkeypatch.setitem(BUILT_IN, "embedder", known)
    assert load_class("embedder", "plugin").name == "plugin"
    Plugin.loaded.clear()
    settings = Settings(embedder=asked)
    with pytest.raises(RecipeMismatchError, match=r"whose weights may be a path .*embedder="):
        choose_features(settings, recipe(embedder="plugin", model={"weights": "theirs/m.pt"}))
    assert not Plugin.loaded
    choose_features(settings, recipe(embedder="plugin", model={"weights": "vits14"}))
    assert Plugin.loaded == ["vits14"]


def test_a_fade_of_another_package_gets_no_path_of_a_recipe() -> None:
    with pytest.raises(RecipeMismatchError, match=r"whose table may be a path .*fade_strategy="):
        choose_features(Settings(), recipe(fade_params={"table": "/theirs/table.npy"}))
