"""Makes the examples that a library keeps from the outlined objects of a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sam_detect.errors import MaskError
from sam_detect.labels import normalised_label
from sam_detect.library.example import Example, example_id, image_digest, now
from sam_detect.library.library import Library
from sam_detect.library.maker import VectorMaker
from sam_detect.library.surroundings import Surroundings, look_around
from sam_detect.types import Frame, Masks, Taught


def make_examples(
    frame: Frame,
    masks: Masks,
    labels: Sequence[str],
    maker: VectorMaker,
    *,
    propose: Callable[[Frame], Masks],
    proposer: str,
    negative: bool = False,
    others: Masks | None = None,
) -> list[Example]:
    """The examples of N objects of a picture, described and with their surroundings.

    Args:
        masks: the objects.
        labels: their names, or what they are *not*.
        maker: the recipe.
        propose: gives the proposals of the picture, around which examples are looked at; not
            asked for negatives, whose surroundings would say nothing of any label.
        proposer: the name of the segmenter that makes them.
        others: all other objects of the picture, where they are known.

    Raises:
        MaskError: the masks are of a picture of another size.
        LibraryError: a label is no name.
    """
    _require_fitting(frame, masks)
    if others is not None:
        _require_fitting(frame, others)
    named = [normalised_label(label) for label in labels]
    crops = list(maker.crops(frame, masks))
    whole = maker.embedder.of_frames
    vectors = maker.of_frame(frame, masks) if whole else maker.vectors(crops)
    around: Sequence[Surroundings | None] = [None] * len(masks)
    if len(masks) and not negative:
        proposed = propose(frame), proposer
        around = look_around(frame, masks, crops, proposed, maker, others=others)
    digest, added = image_digest(frame.image_rgb), now()
    examples = []
    for index, (crop, label) in enumerate(zip(crops, named, strict=True)):
        rle = masks.rle(index)
        x0, y0, x1, y1 = (int(v) for v in masks.boxes_xyxy[index])
        examples.append(
            Example(
                id=example_id(digest=digest, mask_rle=rle, label=label, negative=negative),
                label=label,
                negative=negative,
                source=frame.source_id,
                bbox=[x0, y0, x1 - x0, y1 - y0],
                area=int(masks.areas[index]),
                added=added,
                segmentation=rle,
                crop=crop,
                vector=vectors[index],
                picture=digest,
                surroundings=around[index],
            )
        )
    return examples


def taught_in(frame: Frame, library: Library) -> Taught:
    """The outlines of a library's examples of this very picture, wherever its file lies."""
    return library.taught(image_digest(frame.image_rgb), frame.size_hw)


def _require_fitting(frame: Frame, masks: Masks) -> None:
    if masks.size_hw != frame.size_hw:
        raise MaskError(
            f"masks of a {masks.size_hw[1]}x{masks.size_hw[0]} picture do not fit "
            f"{frame.source_id} ({frame.size_hw[1]}x{frame.size_hw[0]})"
        )
