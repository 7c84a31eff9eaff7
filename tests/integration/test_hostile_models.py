"""Models and recipes of others: nothing that they name is run, loaded or looked for."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

from cli_harness import DISCS, Command, box_around, in_this_process, saved  # noqa: E402
from sam2_helpers import write_small_sam2  # noqa: E402
from small_models import clip_folder  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SHELL = """model:
  _target_: sam2.modeling.sam2_base.SAM2Base
  image_encoder:
    _target_: sam2.modeling.sam2_base.torch.utils.collect_env.run
    _args_: ["echo run > danger"]
"""
ALIASES = "a: &a [x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture
def sam(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """The command line in a folder with a picture."""
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "shapes.png")
    return in_this_process(capfd)


def with_config(config: str) -> str:
    """A sound checkpoint with another person's config next to it."""
    path = write_small_sam2(Path())
    path.with_suffix(".yaml").write_text(config, encoding="utf-8")
    return f"./{path}"


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
def test_a_config_beside_the_weights_runs_no_command(sam: Command, part: str) -> None:
    model = with_config(SHELL)
    sam("shapes.png", f"--{part}", "sam2", "--sam-model", model).failed(
        "small.yaml", "image_encoder._target_", code=2
    )
    assert not Path("danger").exists()


def test_a_config_of_aliases_takes_no_memory(sam: Command) -> None:
    sam("shapes.png", "--sam-model", with_config(ALIASES + SHELL)).failed("alias", code=2)


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
    theirs = clip_folder(Path("theirs/clip")).parent
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
    sam("detect", "shapes.png", "--library", "theirs", "--sam-model", evil / "m.pt").failed(
        "image_encoder._target_", code=2
    )
    assert not Path("danger").exists()


def test_a_library_with_a_file_is_carried_and_asks_for_it(sam: Command, exported: Path) -> None:
    sam("library", "import", exported, "--library", "carried").worked()
    model = ("--segmenter", "naive", "--embedder", "sam2", "--sam-model", "small.pt")
    [found] = sam("detect", "shapes.png", "--library", "carried", *model, "--json").worked().json
    assert any(each["best_label"] == "disc" for each in found["detections"])


# Folders of CLIP

FOREIGN: dict[str, tuple[Change, str]] = {
    "a language model": (
        lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name="theirs/code"), "hf_model_name",
    ),
    "a vision model of a hub": (
        lambda c: c["model_cfg"]["vision_cfg"].update(timm_model_name="hf-hub:theirs/code"),
        "no architecture of timm",
    ),
    "a vision model of a folder": (
        lambda c: c["model_cfg"]["vision_cfg"].update(timm_model_name="local-dir:theirs"),
        "no architecture of timm",
    ),
    "a class": (lambda c: c["model_cfg"].update(_target_="os.system"), "_target_"),
    "arguments of a class": (
        lambda c: c["model_cfg"]["vision_cfg"].update(act_kwargs={"inplace": True}), "act_kwargs",
    ),
    "a huge picture": (
        lambda c: c["model_cfg"]["vision_cfg"].update(image_size=10**6), "image_size",
    ),
    "many words": (
        lambda c: c["model_cfg"]["text_cfg"].update(vocab_size=900_000, width=4096), "weights",
    ),
    "many layers": (
        lambda c: c["model_cfg"]["vision_cfg"].update(layers=128, width=4096), "weights",
    ),
    "a large model of timm": (
        lambda c: c["model_cfg"]["vision_cfg"].update(
            timm_model_name="eva02_enormous_patch14_clip_224"), "weights",
    ),
    "no text": (lambda c: c["model_cfg"].pop("text_cfg"), "text_cfg"),
    "another form": (lambda c: c.update(model_cfg=[1]), "cannot be used"),
    "no numbers": (lambda c: c["preprocess_cfg"].update(std=[0, 0, 0]), "std"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_a_folder_of_clip_is_built_of_open_clips_towers_only(
    sam: Command, tmp_path: Path, name: str
) -> None:
    folder = clip_folder(tmp_path / "clip")
    config = folder / "open_clip_config.json"
    content = json.loads(config.read_text())
    change, said = FOREIGN[name]
    change(content)
    config.write_text(json.dumps(content))
    sam("shapes.png", "--clip-model", folder).failed(str(folder), said, code=2)


def test_a_tokenizer_in_a_folder_is_not_loaded(
    sam: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = clip_folder(tmp_path / "clip")
    config = folder / "open_clip_config.json"
    content = json.loads(config.read_text())
    content["model_cfg"]["text_cfg"] |= {
        "hf_tokenizer_name": "theirs", "tokenizer_kwargs": {"trust_remote_code": True},
    }  # fmt: skip
    config.write_text(json.dumps(content))
    transformers = ModuleType("transformers")
    used: list[str] = []
    transformers.__getattr__ = used.append  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    sam("shapes.png", "--clip-model", folder).worked()
    sam("shapes.png", "--clip-model", folder, "--labeller", "text", "--text-labels", "disc").failed(
        "tokenizers of transformers are not loaded from a folder", code=2
    )
    assert not used


def test_a_folder_here_does_not_stand_for_a_model_of_the_catalogue(
    sam: Command, tmp_path: Path
) -> None:
    clip_folder(tmp_path / "ViT-B-32" / "openai")
    sam("shapes.png", "--clip-model", "ViT-B-32/openai").failed("download-models", code=2)
    sam("shapes.png", "--clip-model", "./ViT-B-32/openai").worked()
