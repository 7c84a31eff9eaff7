"""The feature map that SAM 2's image predictor makes of a picture, for many pictures at once.

It is the predictor's ``image_embed`` on the same weights, without what only its mask decoder
needs: the two finest levels of the feature pyramid, their projections and the position codes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.utils.transforms import SAM2Transforms
from torch.nn.functional import interpolate

from sam_detect.models.running import precision
from sam_detect.models.sam2 import LoadedSAM2
from sam_detect.types import ImageRGB


class SAM2Features:
    """Encodes pictures with a SAM 2 model.

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
        with warnings.catch_warnings():
            # The package scripts its transforms, of which newer versions of torch warn.
            warnings.simplefilter("ignore", FutureWarning)
            self._transforms = SAM2Transforms(resolution=self.side, mask_threshold=0.0)

    def __call__(self, images_rgb: Sequence[ImageRGB]) -> torch.Tensor:
        """``(N, C, h, w)`` float32 on the model's device (64x64 for Meta's models).

        Args:
            images_rgb: ``(H, W, 3)`` uint8 of any sizes.
        """
        model = self._loaded.model
        with torch.inference_mode(), precision(self._loaded.device, self._dtype):
            # Copies where torch would warn of arrays that it must not write.
            writable = [np.require(image, requirements=("C", "W")) for image in images_rgb]
            batch = self._transforms.forward_batch(writable).to(self._loaded.device)
            features = lowest_level(model, batch)
            if model.directly_add_no_mem_embed:
                features = features + model.no_mem_embed.reshape(1, -1, 1, 1)
        return features.float()


def lowest_level(model: Any, batch: torch.Tensor) -> torch.Tensor:
    """The coarsest level of the feature pyramid that SAM 2 uses, ``(N, C, h, w)``.

    Args:
        model: of ``sam2``.
        batch: ``(N, 3, side, side)``, normalised.
    """
    encoder = model.image_encoder
    if type(encoder) is not ImageEncoder or type(encoder.neck) is not FpnNeck:
        found: torch.Tensor = model.forward_image(batch)["backbone_fpn"][-1]
        return found
    maps = encoder.trunk(batch)
    return _merged(encoder.neck, maps, len(maps) - 1 - encoder.scalp)


def _merged(neck: Any, maps: Sequence[torch.Tensor], level: int) -> torch.Tensor:
    """``FpnNeck.forward`` from the coarsest map down to one level, and no further."""
    top = len(maps) - 1
    merged: torch.Tensor = neck.convs[0](maps[top])
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
