"""Models and recipes of others: nothing that they name is run, loaded or looked for."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

from cli_harness import DISCS, Command, box_around, in_this_process, saved  # noqa: E402
from sam2_helpers import write_small_sam2  # noqa: E402
from small_models import write_small_clip  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SHELL = """model:
  _target_: sam2.modeling.sam2_base.SAM2Base
  image_encoder:
    _target_: sam2.modeling.sam2_base.torch.utils.collect_env.run
    _args_: ["echo run > danger"]
"""


@pytest.fixture
def sam(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """The command line in a folder with a picture."""
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "shapes.png")
    return in_this_process(capfd)


def edited(archive: Path, change: Callable[[dict[str, Any]], None], to: Path) -> Path:
    """An exported library with another manifest."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "library.json":
                manifest = json.loads(data)
                change(manifest)
                data = json.dumps(manifest).encode()
            new.writestr(name, data)
    return to


@pytest.mark.parametrize("part", ["segmenter", "embedder"])
def test_a_config_beside_the_weights_is_not_read(sam: Command, part: str) -> None:
    path = write_small_sam2(Path())
    path.with_suffix(".yaml").write_text(SHELL)
    sam("shapes.png", f"--{part}", "sam2", "--sam-model", f"./{path}").worked()
    assert not Path("danger").exists()


Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def exported(sam: Command) -> Path:
    """A library that was made with a checkpoint of one's own, in a file; the checkpoint is here."""
    learn = ("learn", "shapes.png", "--label", "disc", "--box", box_around(*DISCS[0]))
    model = write_small_sam2(Path())
    sam(*learn, "--segmenter", "naive", "--embedder", "sam2", "--sam-model", model).worked()
    sam("library", "export", "good.zip").worked()
    with zipfile.ZipFile("good.zip") as archive:
        assert str(Path.cwd()) not in archive.read("library.json").decode(), "no path in it"
    return Path("good.zip")


def recipe_of(**changes: Any) -> Change:
    """A change of the model of a recipe; None takes a parameter away."""

    def change(manifest: dict[str, Any]) -> None:
        model = {**manifest["recipe"]["model"], **changes}
        manifest["recipe"]["model"] = {k: v for k, v in model.items() if v is not None}

    return change


def embedder_of(name: str, **model: Any) -> Change:
    def change(manifest: dict[str, Any]) -> None:
        manifest["recipe"] |= {"embedder": name, "model": model}

    return change


HOSTILE: dict[str, tuple[Change, str]] = {
    "a checkpoint": (recipe_of(model_size="theirs/m.pt", file=None), "'m.pt'"),
    "a checkpoint beside": (recipe_of(model_size="small.pt", file=None), "'small.pt'"),
    "a checkpoint of an official name": (
        recipe_of(model_size="sam2.1_hiera_tiny.pt", file=None), "'sam2.1_hiera_tiny.pt'",
    ),
    "a file with its path": (recipe_of(file="../../etc/theirs/m.pt"), "'m.pt'"),
    "a path of Windows": (recipe_of(file="C:\\theirs\\m.pt"), "'m.pt'"),
    "a file without a name": (recipe_of(file="/"), "'unknown'"),
    "a config": (recipe_of(config="theirs/m.yaml"), "'small.pt'"),
    "an address": (recipe_of(model_size="https://example.com/m.pt", file=None), "'m.pt'"),
    "a file without a digest": (recipe_of(digest=None), "without a digest"),
    "a digest that is none": (recipe_of(digest="x" * 16), "hexadecimal"),
    "a parameter of its own": (recipe_of(checkpoint="theirs/m.pt"), "no parameter 'checkpoint'"),
    "a device": (recipe_of(device="cuda:99"), "no parameter 'device'"),
    "a pooling": (recipe_of(pooling="__class__"), "pooling"),
    "a list as a name": (recipe_of(file=["a", "b"]), "should be a text"),
    "a folder of CLIP": (
        embedder_of("clip", model_name="/tmp/theirs", digest="0" * 16), "'theirs'",
    ),
    "a folder of CLIP here": (
        embedder_of("clip", model_name="theirs/clip", digest="0" * 16), "no CLIP model is named",
    ),
    "weights of CLIP": (
        embedder_of("clip", model_name="ViT-B-32/openai", weights="theirs/m.pt", digest="0" * 16),
        "'m.pt'",
    ),
    "a model on a hub": (
        embedder_of("clip", model_name="hf-hub:theirs/clip", digest="0" * 16), "'clip'",
    ),
    "a class": (embedder_of("theirs.code:Embedder"), "give it again"),
    "a parameter of plain colours": (embedder_of("average", path="theirs"), "no parameter"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_recipe_names_is_never_loaded(
    sam: Command, exported: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that the recipes name is there, and would leave a trace if it were read."""
    theirs = write_small_clip(Path("theirs/clip")).parents[1]
    (theirs / "m.pt").write_bytes(Path("small.pt").read_bytes())
    (theirs / "m.yaml").write_text(SHELL)
    (theirs / "code.py").write_text("open('danger', 'w')\nclass Embedder: pass\n")
    Path("sam2.1_hiera_tiny.pt").write_bytes(Path("small.pt").read_bytes())
    loaded: list[Path] = []
    monkeypatch.setattr("sam_detect.models.sam2.read_weights", loaded.append)
    monkeypatch.setattr("sam_detect.models.clip.read_weights", loaded.append)
    change, said = HOSTILE[name]
    bad = edited(exported, change, Path("bad.zip"))
    ran = sam("library", "import", bad, "--library", "theirs")
    if ran.code == 0:
        sam("detect", "shapes.png", "--library", "theirs").failed(said, code=2)
    else:
        ran.failed(said, code=1)
    assert not loaded
    assert not Path("danger").exists()


def test_an_imported_library_runs_no_command(sam: Command, exported: Path) -> None:
    evil = Path("theirs").resolve()
    evil.mkdir()
    (evil / "m.pt").write_bytes(Path("small.pt").read_bytes())
    (evil / "m.yaml").write_text(SHELL)
    change = recipe_of(model_size=str(evil / "m.pt"), file=None, config_digest=None)
    edited(exported, change, Path("bad.zip"))
    sam("library", "import", "bad.zip", "--library", "theirs").worked()
    sam("detect", "shapes.png", "--library", "theirs").failed("'m.pt'", "--sam-model", code=2)
    sam("detect", "shapes.png", "--library", "theirs", "--sam-model", evil / "m.pt").worked()
    assert not Path("danger").exists()


def test_a_library_with_a_file_is_carried_and_asks_for_it(sam: Command, exported: Path) -> None:
    sam("library", "import", exported, "--library", "carried").worked()
    model = ("--segmenter", "naive", "--embedder", "sam2", "--sam-model", "small.pt")
    [found] = sam("detect", "shapes.png", "--library", "carried", *model, "--json").worked().json
    assert any(each["best_label"] == "disc" for each in found["detections"])


# Files and folders of CLIP


def test_a_folder_of_clip_is_not_read(sam: Command, tmp_path: Path) -> None:
    folder = write_small_clip(tmp_path / "clip").parent
    (folder / "open_clip_config.json").write_text('{"model_cfg": {"_target_": "os.system"}}')
    sam("shapes.png", "--clip-model", folder).failed(f"'{folder}' is a folder", code=2)


def test_a_file_here_does_not_stand_for_a_model_of_the_catalogue(
    sam: Command, tmp_path: Path
) -> None:
    weights = write_small_clip(tmp_path)
    (tmp_path / "ViT-B-32").mkdir()
    weights.rename(tmp_path / "ViT-B-32" / "openai")
    sam("shapes.png", "--clip-model", "ViT-B-32/openai").failed("download-models", code=2)
