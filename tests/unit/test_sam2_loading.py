"""Loading SAM 2 models: from which files, and what a user reads when one does not fit."""

from __future__ import annotations

import contextlib
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

from model_files import in_cache  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from sam2.build_sam import build_sam2  # noqa: E402
from sam2_helpers import CONFIG, SIDE, write_small_sam2  # noqa: E402

from sam_detect.errors import ConfigError, SamDetectError, UnavailableError  # noqa: E402
from sam_detect.models import sam2 as loading  # noqa: E402
from sam_detect.models.catalogue import SAM2_MODELS, SAM2Weights, sam2_model  # noqa: E402
from sam_detect.models.running import resolve_device, resolve_dtype  # noqa: E402
from sam_detect.models.sam2 import LoadedSAM2, build, load_sam2  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_sam2(tmp_path_factory.mktemp("models"))


def load(path: Path) -> LoadedSAM2:
    return load_sam2(path, device=CPU)


def error_of(path: Path) -> str:
    with pytest.raises(SamDetectError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def changed(small: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    content = torch.load(small, weights_only=True)
    change(content["model"])
    path = folder / "changed.pt"
    torch.save(content, path)
    return path


def test_a_damaged_file_of_the_hubs_cache_is_not_loaded(small: Path) -> None:
    path = in_cache(sam2_model("tiny"), small.read_bytes())
    assert "does not fit its SAM 2 model" in error_of(path), "the small one is not tiny"
    content = bytearray(small.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "is damaged, its SHA-256 is not the published one" in error_of(path)


def test_a_checkpoint_is_loaded_by_the_shapes_of_its_weights(small: Path) -> None:
    loaded = load(small)
    assert loaded.name == "small"
    assert loaded.model.image_size == SIDE
    assert not loaded.model.training
    saved = torch.load(small, weights_only=True)["model"]
    state = loaded.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in saved.items())
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_the_name_of_a_checkpoint_does_not_matter(small: Path, tmp_path: Path) -> None:
    named = tmp_path / "sam2.1_hiera_tiny-cells.pt"
    named.write_bytes(small.read_bytes())
    named.with_suffix(".yaml").write_text("model: {_target_: os.getcwd}")
    assert load(named).model.image_size == SIDE, "and a config beside it is not read"
    assert load(named).file == named.name


@pytest.mark.parametrize(("weights", "said"), [
    ({}, "0 blocks of width 0"),
    ({"image_encoder.trunk.patch_embed.proj.weight": torch.zeros(())}, "of width 0"),
    ({"image_encoder.trunk.patch_embed.proj.weight": torch.zeros(96, 3, 7, 7)}, "width 96"),
])  # fmt: skip
def test_other_sizes_than_metas_are_refused(
    tmp_path: Path, weights: dict[str, torch.Tensor], said: str
) -> None:
    path = tmp_path / "other.pt"
    torch.save({"model": {"extra": torch.zeros(1), **weights}}, path)
    message = error_of(path)
    assert "other.pt does not fit any SAM 2 model of Meta's" in message
    assert said in message


def test_a_name_is_looked_up(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = SAM2Weights("sam2.1_hiera_x", str(CONFIG), small)
    monkeypatch.setattr(loading, "require_sam2", lambda name: {"x": known}[name])
    loaded = load_sam2("x", device=CPU)
    assert (loaded.name, loaded.file) == ("sam2.1_hiera_x", None)


def test_a_name_without_weights_says_how_to_get_them() -> None:
    with pytest.raises(UnavailableError, match="download-models --sam-model base"):
        load_sam2("base", device=CPU)


def test_the_digest_is_of_the_weights_not_of_the_file(small: Path, tmp_path: Path) -> None:
    path = changed(small, tmp_path, lambda state: None)
    assert load(path).digest == load(small).digest

    def nudge(state: dict[str, torch.Tensor]) -> None:
        state["no_mem_embed"][0, 0, 0] += 1

    assert load(changed(small, tmp_path, nudge)).digest != load(small).digest


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    assert "there is no checkpoint" in error_of(tmp_path / "none.pt")


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_checkpoint_is_refused(small: Path, tmp_path: Path, share: float) -> None:
    data = small.read_bytes()
    cut = tmp_path / "cut.pt"
    cut.write_bytes(data[: int(len(data) * share)])
    assert "cut.pt" in error_of(cut)


class Danger:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.touch, (Path("danger"),)  # type: ignore[return-value]


def test_a_pickle_is_not_executed(small: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"model": Danger()}))
    assert "never done" in error_of(path)
    assert not Path("danger").exists()


@pytest.mark.parametrize(("content", "said"), [
    ([1], "holds no weights"),
    ({}, "holds no weights"),
    ({"model": [1]}, "'model' is no tensor"),
    ({"model": {"a": "b"}}, "'a' is no tensor"),
    ({"model": {1: torch.zeros(1)}}, "a name in it is no text"),
    ({"weights": torch.zeros(1)}, "does not fit"),
    ({"model": {"a": torch.zeros(1).expand(10**12)}}, "'a' is no dense tensor"),
    ({"model": {"a": torch.eye(2).to_sparse()}}, "'a' is no dense tensor"),
    ({"model": {"a": torch.empty(10**9, device="meta")}}, "'a' is no dense tensor"),
])  # fmt: skip
def test_a_file_of_something_else_is_refused(
    small: Path, tmp_path: Path, content: object, said: str
) -> None:
    path = tmp_path / "else.pt"
    torch.save(content, path)
    message = error_of(path)
    assert said in message
    assert "else.pt" in message


def test_weights_that_unpack_to_more_than_the_file_has_are_refused(
    small: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(small) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        new.writestr("small/data/999", bytes(50_000_000))
    assert "unpack to" in error_of(path)


def test_weights_are_read_from_safetensors_too(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save_file(torch.load(small, weights_only=True)["model"], path)
    assert load(path).digest == load(small).digest


@given(st.data())
def test_damaged_weights_raise_nothing_unforeseen(small: Path, data: st.DataObject) -> None:
    content = bytearray(small.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, 200_000)) % len(content)
        content[-1 - place] = data.draw(st.integers(0, 255))
    path = small.with_name("damaged.pt")
    path.write_bytes(content)
    with contextlib.suppress(SamDetectError):
        load(path)


@pytest.mark.parametrize(("change", "said"), [
    (lambda state: state.pop("no_mem_embed"), "lacks 1 of"),
    (lambda state: state.update(extra=torch.zeros(1)), "also has 1 of"),
    (lambda state: state.update(no_mem_embed=torch.zeros(1, 1, 31)), "another size 1 of"),
    (lambda state: state["no_mem_embed"].fill_(float("nan")), "NaN or infinite"),
    (lambda state: state["no_mem_embed"].fill_(float("inf")), "NaN or infinite"),
])  # fmt: skip
def test_weights_that_do_not_fit_are_named(  # type: ignore[no-untyped-def]
    small: Path, tmp_path: Path, change, said: str
) -> None:
    message = error_of(changed(small, tmp_path, change))
    assert said in message
    assert "extra" in message or "no_mem_embed" in message


# Meta's own configurations


def plain_attributes(module: torch.nn.Module) -> dict[str, object]:
    """What a module holds besides its weights and its parts, by name."""
    plain = (bool, int, float, str, list, tuple, dict, type(None))
    # ``cache`` is filled on the device, with tensors, when the model is made
    public = {n: v for n, v in vars(module).items() if not n.startswith("_") and n != "cache"}
    values = {  # hydra leaves lists and mappings of its own
        name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        for name, value in public.items()
    }
    return {name: value for name, value in values.items() if isinstance(value, plain)}


@pytest.mark.parametrize("config", [model.config for model in SAM2_MODELS])
def test_an_official_config_gives_the_model_of_the_official_builder(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_enough = config.endswith("sam2.1_hiera_t.yaml")
    if not small_enough:  # drawing random numbers is most of the work
        for layer in (torch.nn.Linear, torch.nn.Conv2d):
            monkeypatch.setattr(layer, "reset_parameters", lambda self: None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ours = build(config).eval()
        torch.manual_seed(0)
        official = build_sam2(config, device="cpu")
    assert str(ours) == str(official)
    for (name, module), (other_name, other) in zip(
        ours.named_modules(), official.named_modules(), strict=True
    ):
        assert name == other_name
        assert type(module) is type(other)
        assert plain_attributes(module) == plain_attributes(other), name
    state, wanted = ours.state_dict(), official.state_dict()
    assert loading._config_of(wanted, Path("x.pt")) == config
    assert [(k, v.shape) for k, v in state.items()] == [(k, v.shape) for k, v in wanted.items()]
    if small_enough:
        assert all(torch.equal(state[name], wanted[name]) for name in wanted)
        picture = torch.rand(1, 3, 256, 256)
        with torch.inference_mode():
            found, expected = ours.forward_image(picture), official.forward_image(picture)
        torch.testing.assert_close(found["vision_features"], expected["vision_features"])


def test_auto_is_a_device_that_is_there() -> None:
    device = resolve_device("auto")
    assert torch.zeros(1, device=device).device.type == device.type
    assert resolve_device("cpu") == CPU


def test_a_gpu_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UnavailableError, match="no CUDA GPU"):
        resolve_device("cuda")
    with pytest.raises(UnavailableError, match="mps"):
        resolve_device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("auto") == torch.device("cuda")
    with pytest.raises(UnavailableError, match="has 1"):
        resolve_device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "meta", "", "cuda:x"])
def test_a_word_that_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="device must be"):
        resolve_device(name)


def test_dtypes() -> None:
    assert resolve_dtype("auto", CPU) == torch.float32
    assert resolve_dtype("bf16", CPU) == torch.bfloat16
    with pytest.raises(ConfigError, match="fp16 is for GPUs"):
        resolve_dtype("fp16", CPU)
    with pytest.raises(ConfigError, match="dtype must be"):
        resolve_dtype("int8", CPU)
