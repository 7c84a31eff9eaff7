"""Loading SAM 2 models: from which files, and what a user reads when one does not fit."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

from sam2.build_sam import build_sam2  # noqa: E402
from sam2_helpers import SIDE, small_config, write_small_sam2  # noqa: E402

from sam_detect.errors import ConfigError, SamDetectError, UnavailableError  # noqa: E402
from sam_detect.models import sam2 as loading  # noqa: E402
from sam_detect.models.devices import resolve_device, resolve_dtype  # noqa: E402
from sam_detect.models.sam2 import LoadedSAM2, is_checkpoint, load_sam2  # noqa: E402
from sam_detect.models.weights import SAM2Weights  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_sam2(tmp_path_factory.mktemp("models"))


def load(path: Path, config: str | Path | None = None) -> LoadedSAM2:
    return load_sam2(path, config=config, device=CPU)


def error_of(path: Path, config: str | Path | None = None) -> str:
    with pytest.raises(SamDetectError) as caught:
        load(path, config)
    message = str(caught.value)
    assert "\n" not in message
    return message


def changed(small: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    content = torch.load(small, weights_only=True)
    change(content["model"])
    path = folder / "changed.pt"
    torch.save(content, path)
    shutil.copy(small.with_suffix(".yaml"), path.with_suffix(".yaml"))
    return path


def test_a_checkpoint_is_loaded_with_the_config_beside_it(small: Path) -> None:
    loaded = load(small)
    assert loaded.name == "small"
    assert loaded.model.image_size == SIDE
    assert not loaded.model.training
    saved = torch.load(small, weights_only=True)["model"]
    state = loaded.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in saved.items())
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_a_checkpoint_named_after_a_model_of_metas_has_its_config(
    small: Path, tmp_path: Path
) -> None:
    named = tmp_path / "sam2.1_hiera_tiny-cells.pt"
    named.write_bytes(small.read_bytes())
    with pytest.raises(ConfigError, match=r"sam2\.1_hiera_t\.yaml"):  # whose weights it has not
        load(named)
    other = named.rename(tmp_path / "cells.pt")
    with pytest.raises(ConfigError, match=r"put cells\.yaml beside it"):
        load(other)


def test_the_decoder_falls_back_to_several_masks_as_in_the_official_builder(small: Path) -> None:
    decoder = load(small).model.sam_mask_decoder
    official = build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu").sam_mask_decoder
    for name in loading.DECODER_EXTRAS:
        assert getattr(decoder, name) == getattr(official, name) is not False


def test_a_config_can_be_named(small: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copy(small, tmp_path / "other.pt"))
    assert "other.yaml" in error_of(moved)
    assert load(moved, small.with_suffix(".yaml")).model.image_size == SIDE


def test_metas_file_names_need_no_config(small: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copy(small, tmp_path / "sam2.1_hiera_tiny.pt"))
    assert "does not fit the config configs/sam2.1/sam2.1_hiera_t.yaml" in error_of(moved)


def test_a_name_is_looked_up(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = SAM2Weights("sam2.1_hiera_x", str(small.with_suffix(".yaml")), small)
    monkeypatch.setattr(loading, "require_sam2", lambda name: {"x": known}[name])
    assert load_sam2("x", device=CPU).name == "sam2.1_hiera_x"


def test_a_name_without_weights_says_how_to_get_them() -> None:
    with pytest.raises(UnavailableError, match="download-models --sam-model base"):
        load_sam2("base", device=CPU)


def test_names_and_files_are_told_apart() -> None:
    assert not any(map(is_checkpoint, ["base", "sam2.1_hiera_large"]))
    assert all(map(is_checkpoint, ["mine.pt", "models/mine", "C:\\mine", Path("mine")]))


def test_the_digest_is_of_the_weights_not_of_the_file(small: Path, tmp_path: Path) -> None:
    path = changed(small, tmp_path, lambda state: None)
    assert load(path).digest == load(small).digest

    def nudge(state: dict[str, torch.Tensor]) -> None:
        state["no_mem_embed"][0, 0, 0] += 1

    assert load(changed(small, tmp_path, nudge)).digest != load(small).digest


def test_a_missing_checkpoint_is_named(tmp_path: Path, small: Path) -> None:
    assert "there is no SAM 2 checkpoint" in error_of(
        tmp_path / "none.pt", small.with_suffix(".yaml")
    )


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_checkpoint_is_refused(small: Path, tmp_path: Path, share: float) -> None:
    data = small.read_bytes()
    cut = tmp_path / "cut.pt"
    cut.write_bytes(data[: int(len(data) * share)])
    assert "cut.pt" in error_of(cut, small.with_suffix(".yaml"))


class Danger:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.touch, (Path("danger"),)  # type: ignore[return-value]


def test_a_pickle_is_not_executed(small: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"model": Danger()}))
    assert "safely" in error_of(path, small.with_suffix(".yaml"))
    assert not Path("danger").exists()


@pytest.mark.parametrize("content", [[1], {"weights": {}}, {"model": [1]}, {"model": {"a": "b"}}])
def test_a_file_of_something_else_is_refused(small: Path, tmp_path: Path, content: object) -> None:
    path = tmp_path / "else.pt"
    torch.save(content, path)
    assert "no SAM 2 checkpoint" in error_of(path, small.with_suffix(".yaml"))


@pytest.mark.parametrize(("change", "said"), [
    (lambda state: state.pop("no_mem_embed"), "lacks 1 of"),
    (lambda state: state.update(extra=torch.zeros(1)), "also has 1 of"),
    (lambda state: state.update(no_mem_embed=torch.zeros(1, 1, 31)), "another size 1 of"),
    (lambda state: state["no_mem_embed"].fill_(float("nan")), "not finite"),
    (lambda state: state["no_mem_embed"].fill_(float("inf")), "not finite"),
])  # fmt: skip
def test_weights_that_do_not_fit_are_named(  # type: ignore[no-untyped-def]
    small: Path, tmp_path: Path, change, said: str
) -> None:
    message = error_of(changed(small, tmp_path, change))
    assert said in message
    assert "extra" in message or "no_mem_embed" in message


@pytest.mark.parametrize(("text", "said"), [
    (": [", "cannot be read"),
    ("a: 1", "no SAM 2 config"),
    ("[1]", "no SAM 2 config"),
    (small_config().replace("hieradet.Hiera", "hieradet.Unknown"), "cannot be built"),
    (small_config().replace("num_maskmem: 7", "unknown: 7"), "cannot be built"),
    (small_config().replace("d_model: 32", "d_model: 31", 1), "cannot be built"),
    ("model: {_target_: sam2.modeling.sam2_utils.DropPath}", "its model is not a"),
    ("model: {_target_: os.getcwd}", "its model is not a"),
    (small_config().replace("num_maskmem: 7", "num_maskmem: {_target_: os.getcwd}"), "os.getcwd"),
])  # fmt: skip
def test_a_config_that_cannot_be_used_is_refused(
    small: Path, tmp_path: Path, text: str, said: str
) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(text, encoding="utf-8")
    message = error_of(small, config)
    assert said in message
    assert "bad.yaml" in message


def test_a_missing_config_is_named(small: Path, tmp_path: Path) -> None:
    assert "no SAM 2 config" in error_of(small, tmp_path / "none.yaml")


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
