"""CLIP: what it gives beside open_clip called plainly, and what it says to files that are wrong."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small_models import clip_folder, official_clip, small_clip

from sam_detect.embedding.clip import CLIPEmbedder
from sam_detect.errors import ConfigError, UnavailableError, UnknownNameError
from sam_detect.fading import BlurFade, GaussianFade, IdentityFade
from sam_detect.fading.context import faded
from sam_detect.models.catalogue import CLIPWeights
from sam_detect.models.clip import find_clip, load_clip
from sam_detect.models.clip_config import read_folder_config
from sam_detect.models.running import in_batches
from sam_detect.types import Crop, FadedCrop

TOLERANCE = 2e-6
"""Largest difference of a unit vector's element from the official one: float32 rounding."""
CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def embedder(folder: Path) -> CLIPEmbedder:
    return CLIPEmbedder(str(folder), device="cpu", batch_size=3)


def crop(seed: int, height: int = 40, width: int = 40, fade: Any = None) -> FadedCrop:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    radius = max(1.0, min(height, width) / 4)
    mask = np.asarray((x - width / 2) ** 2 + (y - height / 2) ** 2 <= radius**2)
    image = random.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return faded(Crop(image, mask, 1.0, (0, 0, width, height)), fade or GaussianFade())


def crops() -> list[FadedCrop]:
    """Of several sizes, some larger and some smaller than the model's input, in three fades."""
    sizes = [(40, 40), (8, 8), (33, 61), (64, 20), (1, 1), (32, 32), (100, 100)]
    fades = [GaussianFade(), IdentityFade(), BlurFade(3.0)]
    return [crop(i, *size, fade=fades[i % 3]) for i, size in enumerate(sizes)]


def officially(folder: Path, images: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    model, preprocess, _ = official_clip(folder)
    with torch.no_grad():
        rows = [
            model.encode_image(preprocess(Image.fromarray(image))[None], normalize=True)
            for image in images
        ]
    return torch.cat(rows).numpy()


def test_parity_of_crops_with_open_clip(folder: Path, embedder: CLIPEmbedder) -> None:
    expected = officially(folder, [each.image_rgb for each in crops()])
    np.testing.assert_allclose(embedder.embed(crops()), expected, atol=TOLERANCE)


def test_parity_of_texts_with_open_clip(folder: Path, embedder: CLIPEmbedder) -> None:
    texts = ["a photo of a nut", "a date", ""]
    model, _, tokenizer = official_clip(folder)
    with torch.no_grad():
        expected = model.encode_text(tokenizer(texts), normalize=True).numpy()
    np.testing.assert_allclose(embedder.embed_texts(texts), expected, atol=TOLERANCE)
    assert embedder.text_scale == pytest.approx(float(model.logit_scale.detach().exp()))


@pytest.mark.slow  # 150 million random weights, written and read
def test_parity_of_a_real_config_with_open_clip(tmp_path: Path) -> None:
    import open_clip

    torch.manual_seed(0)
    official, _, preprocess = open_clip.create_model_and_transforms(
        "ViT-B-32", force_quick_gelu=True
    )
    path = tmp_path / "weights.pt"
    torch.save(official.state_dict(), path)
    images = [each.image_rgb for each in crops()]
    with torch.no_grad():
        batch = torch.stack([preprocess(Image.fromarray(image)) for image in images])
        expected = official.eval().encode_image(batch, normalize=True).numpy()
    found = CLIPEmbedder("openai/clip-vit-base-patch32", weights=path, device="cpu").embed(crops())
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_crops_are_seen_faded(embedder: CLIPEmbedder) -> None:
    vectors = embedder.embed([crop(0, fade=GaussianFade(2.0)), crop(0, fade=IdentityFade())])
    assert float(vectors[0] @ vectors[1]) < 0.999


def test_vectors_keep_the_interface(embedder: CLIPEmbedder) -> None:
    vectors = embedder.embed(crops())
    assert (vectors.dtype, vectors.shape) == (np.float32, (len(crops()), embedder.dimension))
    assert (embedder.dimension, embedder.input_side) == (24, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert embedder.embed([]).shape == embedder.embed_texts([]).shape == (0, 24)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_the_size_of_batches_changes_nothing(
    folder: Path, embedder: CLIPEmbedder, batch_size: int
) -> None:
    other = CLIPEmbedder(str(folder), device="cpu", batch_size=batch_size)
    np.testing.assert_allclose(other.embed(crops()), embedder.embed(crops()), atol=TOLERANCE)


def test_parameters_make_it_again(folder: Path, embedder: CLIPEmbedder) -> None:
    parameters = json.loads(json.dumps(embedder.parameters()))
    assert parameters["file"] == folder.name, "and no path"
    again = CLIPEmbedder(str(folder), digest=parameters["digest"], device="cpu")
    assert again.parameters() == parameters
    np.testing.assert_allclose(again.embed(crops()), embedder.embed(crops()), atol=TOLERANCE)


def test_other_weights_than_those_of_the_recipe_are_refused(
    embedder: CLIPEmbedder, tmp_path: Path
) -> None:
    other = clip_folder(tmp_path, seed=1)
    digest = embedder.parameters()["digest"]
    with pytest.raises(UnavailableError, match="not those that the library was made with"):
        CLIPEmbedder(str(other), digest=digest, device="cpu")


def test_a_lower_precision_is_another_recipe_with_near_vectors(
    folder: Path, embedder: CLIPEmbedder
) -> None:
    lower = CLIPEmbedder(str(folder), device="cpu", dtype="bf16")
    assert lower.parameters() == {**embedder.parameters(), "dtype": "bf16"}
    found, exact = lower.embed(crops()), embedder.embed(crops())
    assert not np.array_equal(found, exact)
    assert (found * exact).sum(axis=1).min() > 0.995


# Configs of folders

OFFICIAL = {name: open_clip.get_model_config(name) for name in open_clip.list_models()}


def official_in(folder: Path, name: str) -> Path:
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": OFFICIAL[name]}))
    return folder


def test_the_configs_of_open_clip_itself_are_read_from_folders(tmp_path: Path) -> None:
    foreign = {
        name
        for name, config in OFFICIAL.items()
        if "hf_model_name" in config["text_cfg"] or "multimodal_cfg" in config
    }
    own = OFFICIAL.keys() - foreign
    assert len(own) > 100
    for name in own:
        found = read_folder_config(official_in(tmp_path, name))
        assert found.model_cfg.embed_dim == OFFICIAL[name]["embed_dim"]
    for name in foreign:
        with pytest.raises(UnavailableError, match="only open_clip's own towers"):
            read_folder_config(official_in(tmp_path, name))


@pytest.mark.parametrize(
    "name", ["ViT-B-32-quickgelu", "RN50", "ViT-B-16-SigLIP", "ViT-H-14-CLIPA"]
)
def test_a_folders_config_gives_open_clips_own_model(name: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        ours = read_folder_config(official_in(tmp_path, name)).build(10**10)
        official = open_clip.create_model(name, load_weights=False, device="meta")
    assert str(ours) == str(official)
    shapes = {key: value.shape for key, value in official.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
    assert ours.visual.preprocess_cfg["size"] == official.visual.preprocess_cfg["size"]


# Names


@pytest.mark.parametrize(
    ("name", "model", "pretrained"),
    [
        ("clip-vit-b", "ViT-B-32", "openai"),
        ("openai/clip-vit-base-patch32", "ViT-B-32", "openai"),
        ("openai/clip-vit-large-patch14-336", "ViT-L-14-336", "openai"),
        ("ViT-B-32:laion2b_s34b_b79k", "ViT-B-32", "laion2b_s34b_b79k"),
        ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "ViT-B-32", "laion2b_s34b_b79k"),
        ("RN50:openai", "RN50", "openai"),
    ],
)
def test_names_mean_what_open_clip_calls_so(name: str, model: str, pretrained: str) -> None:
    found = find_clip(name, Path("weights.pt"))
    assert (found.model, found.pretrained) == (model, pretrained)


@pytest.mark.parametrize("name", ["ViT-B-33", "ViT-B-32:nobody", "openai/gpt", "/no/folder"])
def test_an_unknown_name_says_what_names_there_are(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"no CLIP model is named.*clip-vit-b") as caught:
        find_clip(name, tmp_path / "weights.pt")
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_here_are_never_fetched() -> None:
    with pytest.raises(UnavailableError, match=r"sam-detect download-models --clip-model"):
        CLIPEmbedder("openai/clip-vit-base-patch32", device="cpu")


# Files


def as_state_dict(path: Path, state: Any) -> Path:
    torch.save(state, path)
    return path


@pytest.mark.parametrize("form", ["plain", "state_dict", "module", "safetensors"])
def test_weights_come_in_several_forms(
    form: str, folder: Path, embedder: CLIPEmbedder, tmp_path: Path
) -> None:
    state: dict[str, Any] = dict(small_clip().state_dict())
    if form == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        state = (
            {f"module.{name}": value for name, value in state.items()}
            if form == "module"
            else state
        )
        state = {"epoch": 3, "state_dict": state} if form == "state_dict" else state
        path = as_state_dict(tmp_path / "weights.pt", state)
    found = CLIPEmbedder(str(folder), weights=path, device="cpu")
    np.testing.assert_allclose(found.embed(crops()), embedder.embed(crops()), atol=TOLERANCE)
    assert found.parameters()["file"] == path.name
    assert str(path.parent) not in json.dumps(found.parameters())


class Evil:
    """Executes something when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_file_is_never_executed(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    for name in ("a.pt", "b.bin"):
        path = tmp_path / name
        if name == "a.pt":
            torch.save({"weights": Evil(target)}, path)
        else:
            path.write_bytes(pickle.dumps({"weights": Evil(target)}, 2))
        with pytest.raises(UnavailableError, match=r"never done") as caught:
            CLIPEmbedder(str(folder), weights=path, device="cpu")
        assert "\n" not in str(caught.value)
        assert not target.exists()


def test_a_torchscript_archive_is_refused_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "ViT-B-32.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer torch would rather export
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), str(path))
    with pytest.raises(UnavailableError, match=r"TorchScript.*\.safetensors"):
        CLIPEmbedder(str(folder), weights=path, device="cpu")


def damaged(kind: str, folder: Path, path: Path) -> Path:
    state = load_file(folder / "open_clip_model.safetensors")
    if kind == "truncated safetensors":
        path = path.with_suffix(".safetensors")
        whole = (folder / "open_clip_model.safetensors").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "truncated":
        as_state_dict(path, state)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>not found</html>")
    elif kind == "nan":
        state["visual.proj"][0, 0] = float("nan")
        as_state_dict(path, state)
    elif kind == "list":
        as_state_dict(path, [1, 2])
    elif kind == "no tensors":
        as_state_dict(path, {"visual.proj": 3})
    elif kind == "another model":
        as_state_dict(path, {"fc.weight": torch.zeros(3, 3)})
    elif kind == "another size":
        as_state_dict(path, {**state, "visual.proj": torch.zeros(9, 9)})
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("truncated safetensors", "cannot be read as weights"),
        ("truncated", "cannot be read as weights"),
        ("empty", "cannot be read as weights"),
        ("text", "damaged"),
        ("nan", "'visual.proj' has NaN"),
        ("list", "holds no weights"),
        ("no tensors", "'visual.proj' is no tensor"),
        ("another model", "do not fit the CLIP model"),
        ("another size", "do not fit the CLIP model"),
        ("missing", "there is no weights file"),
    ],
)
def test_a_bad_file_is_said_in_one_line(kind: str, said: str, folder: Path, tmp_path: Path) -> None:
    path = damaged(kind, folder, tmp_path / "weights.pt")
    with pytest.raises(UnavailableError, match=said) as caught:
        CLIPEmbedder(str(folder), weights=path, device="cpu")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("config", ["{", "{}", '{"model_cfg": {"embed_dim": 3}}', "[]"])
def test_a_bad_config_is_said_in_one_line(config: str, folder: Path, tmp_path: Path) -> None:
    other = clip_folder(tmp_path)
    (other / "open_clip_config.json").write_text(config)
    with pytest.raises(UnavailableError, match=r"config|built") as caught:
        CLIPEmbedder(str(other), device="cpu")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_model_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"no open_clip_config.json"):
        CLIPEmbedder(str(tmp_path), device="cpu")
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(UnavailableError, match=r"has no weights"):
        CLIPEmbedder(str(tmp_path), device="cpu")


def test_loading_says_nothing_by_itself(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_clip(find_clip(str(folder)), device=CPU)
    assert capfd.readouterr() == ("", "")


def test_the_weights_of_a_name_are_loaded_as_its_model(folder: Path, tmp_path: Path) -> None:
    found = CLIPWeights("ViT-B-32", "openai", folder / "open_clip_model.safetensors")
    with pytest.raises(UnavailableError, match="do not fit the CLIP model 'ViT-B-32'"):
        load_clip(found, device=CPU)


# Devices


def test_a_device_that_is_not_here_is_said(folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ConfigError, match="cuda"):
        CLIPEmbedder(str(folder), device="cuda")


def test_batches_are_halved_until_the_memory_suffices() -> None:
    sizes = []

    def run(items: Any) -> torch.Tensor:
        sizes.append(len(items))
        if len(items) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.tensor([[float(item)] for item in items])

    assert in_batches(run, range(10), 8).ravel().tolist() == list(range(10))
    assert sizes == [8, 4, 2, 2, 2, 2, 2]


def test_a_model_that_runs_out_of_memory_gives_the_same_vectors(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = CLIPEmbedder(str(folder), device="cpu", batch_size=8)
    expected = embedder.embed(crops()), embedder.embed_texts([*"abcde"])
    model, asked = embedder._loaded.model, []

    def limited(forward: Any) -> Any:
        def run(batch: torch.Tensor) -> torch.Tensor:
            asked.append(len(batch))
            if len(batch) > 3:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            made: torch.Tensor = forward(batch)
            return made

        return run

    monkeypatch.setattr(model, "encode_image", limited(model.encode_image))
    monkeypatch.setattr(model, "encode_text", limited(model.encode_text))
    np.testing.assert_allclose(embedder.embed(crops()), expected[0], atol=TOLERANCE)
    assert max(asked) > 3
    np.testing.assert_allclose(embedder.embed_texts([*"abcde"]), expected[1], atol=TOLERANCE)
    asked.clear()
    embedder.embed(crops())
    assert max(asked) == 3, "what did not fit is not tried again"


def test_what_does_not_fit_at_all_is_said() -> None:
    def run(_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UnavailableError, match=r"memory does not suffice.*'cpu'"):
        in_batches(run, range(3), 2)
