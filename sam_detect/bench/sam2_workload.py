"""How much the suite ``sam2`` measures; imported by the suite without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """What is measured.

    Attributes:
        config: the architecture, as ``models.sam2.load_sam2`` takes it.
        picture_side: of the picture whose masks are made, pixels.
        per_side: points along a side of its grid.
        large_side, large_per_side, large_masks: the same for the peak of memory, and about how
            many masks are to be found there.
        prompts: of the decoder alone; on a GPU, where they are decoded by the dozen, 16 times as
            many.
        embedded: objects of 100 that are really embedded one by one; the time is multiplied. On
            a GPU all of them are.
        threads: of torch.
        frame_hw: of the frame whose stages are timed on a GPU, pixels.
    """

    config: str = "configs/sam2.1/sam2.1_hiera_t.yaml"
    picture_side: int = 800
    per_side: int = 32
    large_side: int = 2000
    large_per_side: int = 16
    large_masks: int = 500
    prompts: int = 16
    embedded: int = 4
    threads: int = 2
    frame_hw: tuple[int, int] = (1080, 1920)
