"""What learning from one picture did, and the outlines that it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from sam_detect.library.library import Added
from sam_detect.masks import FloatArray
from sam_detect.outputs.overlay import draw_preview
from sam_detect.types import Frame, Masks


@dataclass(frozen=True, kw_only=True, eq=False)
class Learnt(Added):
    """What :meth:`~sam_detect.api.SAMDetect.learn` did.

    Attributes:
        masks: the N outlines that it took: given masks first, then one for each box, then one for
            each point.
        box_ious: ``(N,)`` float32, overlap (IoU) of each outline's box with the given box; NaN
            where none was given.
        warnings: one line for each box that may not mean what it says, or that nothing fits.
        left_out: proposals that ``masks="auto"`` did not take.
        frame: the picture.
        boxes_xywh: the given boxes.
    """

    masks: Masks
    box_ious: FloatArray
    warnings: tuple[str, ...]
    left_out: int
    frame: Frame
    boxes_xywh: Sequence[Sequence[float]] = ()

    def preview(self) -> Image.Image:
        """The picture with the outlines and the given boxes drawn in."""
        return Image.fromarray(draw_preview(self.frame.image_rgb, self.masks, self.boxes_xywh))
