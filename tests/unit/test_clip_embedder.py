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
from small_models import official_clip, small_clip, write_small_clip

from sam_detect.embedding.clip import CLIPEmbedder
from sam_detect.errors import ConfigError, UnavailableError, UnknownNameError
from sam_detect.fading import BlurFade, GaussianFade, IdentityFade
from sam_detect.fading.context import faded
from sam_detect.models.catalogue import CLIPWeights
from sam_detect.models.clip import find_clip, load_clip
from sam_detect.models.running import in_batches
from sam_detect.types import Crop, FadedCrop

TOLERANCE = 2e-6
"""Largest difference of a unit vector's element from the official one: float32 rounding."""
CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def embedder(small: Path) -> CLIPEmbedder:
    return CLIPEmbedder(str(small), device="cpu", batch_size=3)


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


def officially(small: Path, images: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    model, preprocess, _ = official_clip(small)
    with torch.no_grad():
        rows = [
            model.encode_image(preprocess(Image.fromarray(image))[None], normalize=True)
            for image in images
        ]
    return torch.cat(rows).numpy()


def test_parity_of_crops_with_open_clip(small: Path, embedder: CLIPEmbedder) -> None:
    expected = officially(small, [each.image_rgb for each in crops()])
    np.testing.assert_allclose(embedder.embed(crops()), expected, atol=TOLERANCE)


def test_parity_of_texts_with_open_clip(small: Path, embedder: CLIPEmbedder) -> None:
    texts = ["a photo of a nut", "a date", ""]
    model, _, tokenizer = official_clip(small)
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
    small: Path, embedder: CLIPEmbedder, batch_size: int
) -> None:
    other = CLIPEmbedder(str(small), device="cpu", batch_size=batch_size)
    np.testing.assert_allclose(other.embed(crops()), embedder.embed(crops()), atol=TOLERANCE)


def test_parameters_make_it_again(small: Path, embedder: CLIPEmbedder) -> None:
    parameters = json.loads(json.dumps(embedder.parameters()))
    assert parameters["file"] == small.name, "and no path"
    again = CLIPEmbedder(str(small), digest=parameters["digest"], device="cpu")
    assert again.parameters() == parameters
    np.testing.assert_allclose(again.embed(crops()), embedder.embed(crops()), atol=TOLERANCE)


def test_other_weights_than_those_of_the_recipe_are_refused(
    embedder: CLIPEmbedder, tmp_path: Path
) -> None:
    other = write_small_clip(tmp_path, seed=1)
    digest = embedder.parameters()["digest"]
    with pytest.raises(UnavailableError, match="not those that the library was made with"):
        CLIPEmbedder(str(other), digest=digest, device="cpu")


def test_a_lower_precision_is_another_recipe_with_near_vectors(
    small: Path, embedder: CLIPEmbedder
) -> None:
    lower = CLIPEmbedder(str(small), device="cpu", dtype="bf16")
    assert lower.parameters() == {**embedder.parameters(), "dtype": "bf16"}
    found, exact = lower.embed(crops()), embedder.embed(crops())
    assert not np.array_equal(found, exact)
    assert (found * exact).sum(axis=1).min() > 0.995


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
    form: str, small: Path, embedder: CLIPEmbedder, tmp_path: Path
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
    found = CLIPEmbedder(str(small), weights=path, device="cpu")
    np.testing.assert_allclose(found.embed(crops()), embedder.embed(crops()), atol=TOLERANCE)
    assert found.parameters()["file"] == path.name
    assert str(path.parent) not in json.dumps(found.parameters())


class Evil:
    """Executes something when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_file_is_never_executed(small: Path, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    for name in ("a.pt", "b.bin"):
        path = tmp_path / name
        if name == "a.pt":
            torch.save({"weights": Evil(target)}, path)
        else:
            path.write_bytes(pickle.dumps({"weights": Evil(target)}, 2))
        with pytest.raises(UnavailableError, match=r"never done") as caught:
            CLIPEmbedder(str(small), weights=path, device="cpu")
        assert "\n" not in str(caught.value)
        assert not target.exists()


def test_a_torchscript_archive_is_refused_with_the_way_out(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "ViT-B-32.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer torch would rather export
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), str(path))
    with pytest.raises(UnavailableError, match=r"TorchScript.*\.safetensors"):
        CLIPEmbedder(str(small), weights=path, device="cpu")


def damaged(kind: str, small: Path, path: Path) -> Path:
    state = load_file(small)
    if kind == "truncated safetensors":
        path = path.with_suffix(".safetensors")
        whole = small.read_bytes()
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
def test_a_bad_file_is_said_in_one_line(kind: str, said: str, small: Path, tmp_path: Path) -> None:
    path = damaged(kind, small, tmp_path / "weights.pt")
    with pytest.raises(UnavailableError, match=said) as caught:
        CLIPEmbedder(str(small), weights=path, device="cpu")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_the_name_of_a_file_tells_the_architecture(small: Path, tmp_path: Path) -> None:
    quick = tmp_path / "ViT-B-32-quickgelu_cells.safetensors"
    quick.write_bytes(small.read_bytes())
    assert find_clip(str(quick)) == CLIPWeights("ViT-B-32-quickgelu", "", quick)
    with pytest.raises(UnavailableError, match="do not fit the CLIP model 'ViT-B-32-quickgelu'"):
        CLIPEmbedder(str(quick), device="cpu")
    for name in ("cells.safetensors", "roberta-ViT-B-32_cells.safetensors"):
        nameless = tmp_path / name
        nameless.write_bytes(b"")
        with pytest.raises(ConfigError, match=r"begin the file's name with open_clip's name of it"):
            find_clip(str(nameless))


def test_the_architecture_is_part_of_the_model(tmp_path: Path) -> None:
    """Nothing in the weights tells which activation they were trained with."""
    given = {}
    for name in ("small-clip", "small-clip-other"):
        config = json.loads((Path(__file__).parents[1] / "fixtures/small-clip.json").read_text())
        (tmp_path / f"{name}.json").write_text(json.dumps({**config, "quick_gelu": True}))
        if name != "small-clip":
            open_clip.add_model_config(tmp_path / f"{name}.json")
        weights = write_small_clip(tmp_path).rename(tmp_path / f"{name}_x.safetensors")
        given[name] = CLIPEmbedder(str(weights), device="cpu").parameters()
    one, other = given.values()
    assert one["digest"] == other["digest"]
    assert one["config_digest"] != other["config_digest"]


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"is a folder: name the file of weights in it"):
        CLIPEmbedder(str(tmp_path), device="cpu")


def test_loading_says_nothing_by_itself(small: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_clip(find_clip(str(small)), device=CPU)
    assert capfd.readouterr() == ("", "")


def test_the_weights_of_a_name_are_loaded_as_its_model(small: Path, tmp_path: Path) -> None:
    found = CLIPWeights("ViT-B-32", "openai", small)
    with pytest.raises(UnavailableError, match="do not fit the CLIP model 'ViT-B-32'"):
        load_clip(found, device=CPU)


# Devices


def test_a_device_that_is_not_here_is_said(small: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ConfigError, match="cuda"):
        CLIPEmbedder(str(small), device="cuda")


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
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = CLIPEmbedder(str(small), device="cpu", batch_size=8)
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
