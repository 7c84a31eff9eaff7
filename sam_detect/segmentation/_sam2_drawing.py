"""From prompts whose masks pass to masks of the picture, as suits the device: one after another
where memory is what takes time (a CPU), many at once where starting and asking is (a GPU)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sam_detect.models.running import BatchSize, sent
from sam_detect.segmentation._sam2_cutting import cut_out_batch
from sam_detect.segmentation._sam2_decoder import Undrawn
from sam_detect.segmentation._sam2_masks import Cut, Limits, cut_out

DRAWN_AT_ONCE = {"cpu": 1, "cuda": 16, "mps": 4}
"""Prompts: a prompt's masks take some 25 MB while they are drawn."""


def cut_out_each(logits: Tensor, size_hw: tuple[int, int], limits: Limits) -> list[Cut | None]:
    """What ``cut_out_batch`` gives, mask by mask."""
    return [cut_out(each, size_hw, limits) for each in logits]


class Drawing:
    """Draws the masks of prompts and cuts them out.

    Args:
        device: where the logits are.

    Attributes:
        at_once: prompts whose masks are drawn together; fewer once memory did not suffice.
    """

    def __init__(self, device: torch.device) -> None:
        self.at_once = BatchSize(DRAWN_AT_ONCE[device.type])
        self.cut_out = cut_out_each if device.type == "cpu" else cut_out_batch

    def cuts(
        self,
        undrawn: Undrawn,
        prompts: Sequence[int],
        masks: Sequence[int],
        size_hw: tuple[int, int],
        limits: Limits,
    ) -> list[Cut | None]:
        """K masks of a chunk of prompts.

        Args:
            undrawn: the chunk.
            prompts: K numbers in the chunk, none lower than the one before.
            masks: K numbers among the masks of their prompts.
            size_hw: of the picture.
            limits: which masks pass.
        """
        asked = sorted(set(prompts))
        wanted = list(zip(prompts, masks, strict=True))

        def some(part: slice) -> list[Cut | None]:
            numbers = asked[part]
            logits = undrawn.draw_many(numbers)
            chosen = [numbers.index(prompt) * logits.shape[1] + mask
                      for prompt, mask in wanted if prompt in numbers]  # fmt: skip
            at = sent(chosen, logits.device)
            return self.cut_out(logits.flatten(0, 1)[at], size_hw, limits)

        return [cut for cuts in self.at_once.parts(len(asked), some) for cut in cuts]

    def each(
        self,
        prompts: Sequence[int],
        answer: Callable[[Sequence[int]], tuple[Tensor, Tensor]],
        size_hw: tuple[int, int],
        limits: Limits,
    ) -> list[tuple[Cut | None, float]]:
        """One mask for each prompt of a chunk, and its predicted IoU.

        Args:
            prompts: K numbers in the chunk, which rise.
            answer: gives the ``(K, h, w)`` logits and ``(K,)`` IoUs of some of them.
            size_hw: of the picture.
            limits: which masks pass; None for those whose predicted IoU does not.
        """

        def some(part: slice) -> list[tuple[Cut | None, float]]:
            logits, found = answer(prompts[part])
            ious = found.cpu()
            chosen = passing(ious, limits).nonzero()[:, 0]
            cuts = self.cut_out(logits[sent(chosen, logits.device)], size_hw, limits)
            of = dict(zip(chosen.tolist(), cuts, strict=True))
            return [(of.get(number), iou) for number, iou in enumerate(ious.tolist())]

        return [each for part in self.at_once.parts(len(prompts), some) for each in part]


def passing(ious: Tensor, limits: Limits) -> Tensor:
    """Which predicted IoUs pass, of any shape."""
    return ious > (limits.pred_iou if limits.pred_iou > 0 else -torch.inf)
