"""What SAM 2's image encoder makes of pictures: of many crops, and of whole pictures once.

It is what the official predictor makes on the same weights. Crops need its ``image_embed`` alone,
without what only the mask decoder needs: the two finest levels of the feature pyramid, their
projections and the position codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from torch.nn.functional import interpolate

from sam_detect.errors import UnavailableError
from sam_detect.models.running import BatchSize, enough_memory, precision, to_device
from sam_detect.models.sam2 import LoadedSAM2
from sam_detect.models.sharing import Shared, WhileAlive
from sam_detect.types import Frame, ImageRGB

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of the pictures that SAM 2 learnt from (ImageNet's), as in ``sam2.utils.transforms``."""
FRAMES_KEPT = 8
"""Pictures whose features are kept while they are in use, by as many threads or in one batch;
16 MB each for Meta's models."""


@dataclass(frozen=True, eq=False)
class FrameFeatures:
    """What the encoder made of one picture.

    Attributes:
        image_embed: ``(1, C, h, w)`` float32.
        high_res: finer features, ``(1, C/8, 4h, 4w)`` and ``(1, C/4, 2h, 2w)``, or none.
    """

    image_embed: Tensor
    high_res: tuple[Tensor, ...]


class FrameEncoder:
    """Encodes whole pictures, each once for all parts that use one model in one precision.

    Features are kept as long as their :class:`~sam_detect.types.Frame`, of the last few. Ask
    :func:`frame_encoder` for one: what one precision made is never given for another.
    """

    def __init__(self, loaded: LoadedSAM2, dtype: torch.dtype) -> None:
        self.loaded, self.dtype = loaded, dtype
        self._features: WhileAlive[Frame, FrameFeatures] = WhileAlive(FRAMES_KEPT)

    def __call__(self, frame: Frame) -> FrameFeatures:
        """The frame's features; read-only, because they are shared."""
        return self._features.of(frame, lambda: self._encode([frame])[0])

    def encode_together(self, frames: Sequence[Frame]) -> None:
        """Encodes frames at once, so that they are known to those who ask next."""
        for frame, features in zip(frames, self._encode(frames), strict=True):
            self._features.put(frame, features)

    def _encode(self, frames: Sequence[Frame]) -> list[FrameFeatures]:
        made = encode(self.loaded.model, [frame.image_rgb for frame in frames], self.dtype)
        if not all(bool(torch.isfinite(each.image_embed).all()) for each in made):
            # Else nothing would be found in any picture, silently.
            raise UnavailableError(
                f"the model '{self.loaded.name}' sees no numbers (NaN or infinite) in a picture: "
                f"its weights are damaged, or need the dtype 'fp32'"
            )
        return made


_ENCODERS: Shared[FrameEncoder] = Shared()


def frame_encoder(loaded: LoadedSAM2, dtype: torch.dtype) -> FrameEncoder:
    """The encoder that all share who run a model in a precision, as long as any holds it."""
    # The encoder holds the model, so no other one gets this id meanwhile.
    return _ENCODERS.get((id(loaded.model), dtype), lambda: FrameEncoder(loaded, dtype))


@torch.inference_mode()
def encode(model: SAM2Base, images: Sequence[ImageRGB], dtype: torch.dtype) -> list[FrameFeatures]:
    """The features of pictures of any size, encoded together as far as memory suffices.

    Raises:
        UnavailableError: it does not suffice for one.
    """
    together = BatchSize(max(1, len(images)))
    with enough_memory():
        parts = together.parts(len(images), lambda part: _encode_batch(model, images[part], dtype))
        return [features for part in parts for features in part]


def _encode_batch(
    model: SAM2Base, images: Sequence[ImageRGB], dtype: torch.dtype
) -> list[FrameFeatures]:
    with precision(model.device, dtype):
        found = model.forward_image(_preprocess(images, model))
        _, levels, _, sizes = model._prepare_backbone_features(found)
    if model.directly_add_no_mem_embed:
        levels[-1] = levels[-1] + model.no_mem_embed
    maps = [
        level.permute(1, 2, 0).unflatten(-1, size).float()
        for level, size in zip(levels, sizes, strict=True)
    ]
    return [
        FrameFeatures(maps[-1][i : i + 1], tuple(level[i : i + 1] for level in maps[:-1]))
        for i in range(len(images))
    ]


class SAM2Features:
    """Encodes crops with a SAM 2 model.

    Args:
        loaded: the model.
        dtype: float32; or a lower precision to run in (autocast).

    Attributes:
        side: the model sees every picture at this side, pixels.
        dimension: C, channels of a feature map (256 for Meta's models).
    """

    def __init__(self, loaded: LoadedSAM2, dtype: torch.dtype = torch.float32) -> None:
        self._loaded, self._dtype = loaded, dtype
        self.side = int(loaded.model.image_size)
        self.dimension = int(loaded.model.hidden_dim)

    def __call__(self, images_rgb: Sequence[ImageRGB]) -> Tensor:
        """``(N, C, h, w)`` float32 on the model's device (64x64 for Meta's models).

        Args:
            images_rgb: ``(H, W, 3)`` uint8 of any sizes.
        """
        model = self._loaded.model
        with torch.inference_mode(), precision(self._loaded.device, self._dtype):
            features = lowest_level(model, _preprocess(images_rgb, model))
            if model.directly_add_no_mem_embed:
                features = features + model.no_mem_embed.reshape(1, -1, 1, 1)
        return features.float()


def _preprocess(images_rgb: Sequence[ImageRGB], model: SAM2Base) -> Tensor:
    """``(N, 3, side, side)`` as the model was taught to see pictures of any sizes."""
    side, device = model.image_size, model.device
    mean, std = _norms(device)
    # torch before 2.7 cannot scale with antialiasing on MPS.
    scaling = torch.device("cpu") if device.type == "mps" else device
    scaled = []
    for image in images_rgb:
        # A copy where torch would warn of an array that it must not write.
        pixels = to_device(np.require(image, requirements=("C", "W")), scaling)
        whole = pixels.permute(2, 0, 1)[None].float() / 255
        scaled.append(interpolate(whole, (side, side), mode="bilinear", antialias=True))
    return (torch.cat(scaled).to(device) - mean) / std


@lru_cache(maxsize=16)
def _norms(device: torch.device) -> tuple[Tensor, Tensor]:
    """``MEAN`` and ``STD``, ``(1, 3, 1, 1)`` each: to send them for each picture would take longer
    than to use them."""
    mean, std = (to_device(values, device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return mean, std


def lowest_level(model: Any, batch: Tensor) -> Tensor:
    """The coarsest level of the feature pyramid that SAM 2 uses, ``(N, C, h, w)``.

    Args:
        model: of ``sam2``.
        batch: ``(N, 3, side, side)``, normalised.
    """
    encoder = model.image_encoder
    if type(encoder) is not ImageEncoder or type(encoder.neck) is not FpnNeck:
        found: Tensor = model.forward_image(batch)["backbone_fpn"][-1]
        return found
    maps = encoder.trunk(batch)
    return _fpn_level(encoder.neck, maps, len(maps) - 1 - encoder.scalp)


def _fpn_level(neck: Any, maps: Sequence[Tensor], level: int) -> Tensor:
    """``FpnNeck.forward`` from the coarsest map down to one level, and no further."""
    top = len(maps) - 1
    merged: Tensor = neck.convs[0](maps[top])
    for index in range(top - 1, level - 1, -1):
        lateral = neck.convs[top - index](maps[index])
        if index in neck.fpn_top_down_levels:
            mode = neck.fpn_interp_model
            corners = None if mode == "nearest" else False
            above = interpolate(merged.float(), scale_factor=2.0, mode=mode, align_corners=corners)
            lateral = lateral + above
            if neck.fuse_type == "avg":
                lateral = lateral / 2
        merged = lateral
    return merged


def bilinear_rows(length: int, cells: int) -> npt.NDArray[np.float32]:
    """``(length, cells)``: how much each cell counts in each pixel when ``cells`` values are
    interpolated to ``length`` pixels, as ``interpolate(mode="bilinear", align_corners=False)``."""
    source = np.maximum((np.arange(length) + 0.5) * cells / length - 0.5, 0)
    low = np.minimum(source.astype(np.int64), cells - 1)
    share = np.asarray(source - low, np.float32)
    rows = np.zeros((length, cells), np.float32)
    pixels = np.arange(length)
    rows[pixels, low] = 1 - share
    rows[pixels, np.minimum(low + 1, cells - 1)] += share
    return rows
