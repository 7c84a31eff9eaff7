"""Whether annotations fit their picture: its size, its planes, and what it shows."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sam_detect.errors import MaskError
from sam_detect.pipeline.placement import placed
from sam_detect.types import AnnotatedImage, Annotation, Frame
from sam_detect.types.annotations import checked_size
from sam_detect.types.frames import PixelSize
from sam_detect.types.masks import compress_rle
from sam_detect.types.polygons import require_mostly_inside

SIZE = (40, 60)
RING = np.array([(10, 10), (20, 10), (20, 30), (10, 30)], float)


@pytest.mark.parametrize("moved", [(-11, 0), (0, -16), (41, 0), (0, 16), (35, 16), (-1000, 0)])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_an_outline_lies_mostly_in_the_picture(moved: tuple[int, int], parts: int) -> None:
    """However often its parts overlap; one of which no pixel is inside is said elsewhere."""
    there = RING + moved
    share = np.clip(SIZE[::-1], there.min(axis=0), there.max(axis=0)) - np.clip(0, *(there[[0, 2]]))
    inside = share.prod() / 200
    polygons = [(there,)] * parts
    if 0 < inside < 0.5:
        with pytest.raises(MaskError, match=r"outside of the 60x40 picture.*--fit as-is"):
            require_mostly_inside(polygons, SIZE)
    else:
        require_mostly_inside(polygons, SIZE)
    require_mostly_inside([(RING,)] * parts, SIZE)
    require_mostly_inside([(RING + (-4, 0),)], SIZE)  # noqa: RUF005 - an array


def of(*outlines: Annotation, **more: Any) -> AnnotatedImage:
    return AnnotatedImage("a.png", "a.png", outlines, **more)


EVERY = (
    Annotation(polygons=((RING, RING / 2 + 7),)),
    Annotation(bbox_xywh=(10, 10, 10, 20)),
    Annotation(point_xy=(30, 20)),
    Annotation(mask_rle=compress_rle([410, 20, 20, 20, 1930], SIZE)),
)
"""A polygon with a hole, a box, a point, and two columns of a mask."""


@pytest.mark.parametrize("size", [SIZE, (40, 0), (0, 60), None])
def test_annotations_of_the_pictures_size_are_left_alone(size: Any) -> None:
    image = of(*EVERY, size_hw=size)
    assert image.fitted(SIZE, turned=False) == (image, "")


@pytest.mark.parametrize("factor", [2, 0.5, 3, 1.3])
def test_every_outline_is_scaled(factor: float) -> None:
    new = round(SIZE[0] * factor), round(SIZE[1] * factor)
    with pytest.raises(MaskError, match=rf"made on 60x40 .* has {new[1]}x{new[0]}.*--fit scale"):
        of(*EVERY, size_hw=SIZE).fitted(new, turned=False)
    found, line = of(*EVERY, size_hw=SIZE, fit="scale").fitted(new, turned=False)
    assert "scaled by" in line
    polygon, box, point, mask = found.outlines
    assert np.allclose(polygon.polygons[0], (RING * factor, (RING / 2 + 7) * factor))
    assert box.bbox_xywh == pytest.approx((10 * factor, 10 * factor, 10 * factor, 20 * factor))
    assert point.point_xy == pytest.approx((30 * factor, 20 * factor))
    found_box, crop = mask.crop(new) or ((), np.zeros(0))
    assert np.allclose(found_box, np.array((10, 10, 12, 30)) * factor, atol=1)
    assert np.count_nonzero(crop) == pytest.approx(40 * factor**2, rel=0.2)


def test_run_lengths_say_their_size_themselves() -> None:
    image = of(EVERY[3], EVERY[3], fit="scale")
    found, _ = image.fitted((80, 120), turned=False)
    assert [each.mask_rle for each in found.outlines] == [None, None]
    broken = Annotation(mask_rle={"size": [40, 60], "counts": "?"})
    found, _ = of(EVERY[3], broken, fit="scale").fitted((80, 120), turned=False)
    assert found.outlines[1] is broken  # its crop says why


@pytest.mark.parametrize(
    ("said", "new", "one"),
    [
        ((480, 640), (241, 320), True), ((480, 640), (244, 320), False),
        ((3024, 4032), (750, 1000), True), ((3024, 4032), (563, 1000), False),
        ((40, 60), (60, 40), False), ((10**30, 10**30), (40, 60), False),
    ],
)  # fmt: skip
def test_a_ratio_is_one_number_within_a_pixel(
    said: tuple[int, int], new: tuple[int, int], one: bool
) -> None:
    image = of(EVERY[0], size_hw=said, fit="scale")
    if one:
        assert image.fitted(new, turned=False)[1]
    else:
        with pytest.raises(MaskError, match="made on") as caught:
            image.fitted(new, turned=False)
        assert "--fit scale)" not in str(caught.value)
    assert replace(image, fit="as-is").fitted(new, turned=False)[0].outlines == image.outlines


def test_of_a_turned_picture_the_reach_tells_which_way_up_outlines_are() -> None:
    turned = of(EVERY[0], size_hw=(60, 40))
    assert turned.fitted(SIZE, turned=True) == (turned, "")
    beyond = of(Annotation(bbox_xywh=(0, 40, 10, 15)), size_hw=(60, 40))
    with pytest.raises(MaskError, match=r"reach 10,55, .* as it is stored"):
        beyond.fitted(SIZE, turned=True)
    with pytest.raises(MaskError, match="made on 40x60"):
        turned.fitted(SIZE, turned=False)


@pytest.mark.parametrize(
    ("given", "size"),
    [((4, 6), (4, 6)), (("4", 6.0), (4, 6)), ((None, 6), (0, 6)), ((-1, 0), None),
     ((float("nan"), float("inf")), None), (([], {}), None), ((True, 6), (0, 6))],
)  # fmt: skip
def test_a_size_as_files_say_it(given: Any, size: Any) -> None:
    assert checked_size(*given) == size


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_of_all_formats(number: float) -> None:
    for each in ({"bbox_xywh": (0, number, 1, 1)}, {"point_xy": (number, 0)}):
        with pytest.raises(MaskError, match="not finite"):
            Annotation(**each)  # type: ignore[arg-type]


def test_a_plane_is_no_matter_where_there_is_one() -> None:
    placed_there = [replace(EVERY[0], location=(0, z, 0)) for z in (4, 4, 2)]
    found, line = of(*placed_there[:2]).in_one_plane()
    assert [each.location for each in found.outlines] == [None, None]
    assert line
    with pytest.raises(MaskError, match="several planes"):
        of(*placed_there).in_one_plane()


# What the picture shows


def tissue(style: str) -> tuple[Frame, list[np.ndarray]]:
    """Twelve discs in one of the ways in which microscopes show cells, and their outlines."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:240, :320]
    image = rng.normal(90, 12, (240, 320))
    rings = []
    for cx, cy in ((45 + 75 * i, 45 + 75 * j) for i in range(4) for j in range(3)):
        away = np.hypot(x - cx, y - cy)
        if style == "bright":
            image[away <= 16] += 60
        elif style == "a membrane":  # inside and outside look alike
            image[abs(away - 16) <= 2] += 60
        elif style == "texture":
            image[away <= 16] += rng.normal(0, 45, int((away <= 16).sum()))
        turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        rings.append(np.stack([cx + 16 * np.cos(turn), cy + 16 * np.sin(turn)], axis=1) + 0.5)
    grey = np.clip(image, 0, 255).astype(np.uint8)
    return Frame(np.repeat(grey[..., None], 3, axis=2), "a.png"), rings


def outlined(rings: list[np.ndarray], **more: Any) -> AnnotatedImage:
    return of(*(Annotation(("cell",), ((ring,),)) for ring in rings), **more)


@pytest.mark.parametrize("style", ["bright", "a membrane", "texture"])
@pytest.mark.parametrize("change", ["none", "larger", "moved"])
def test_outlines_of_objects_are_taken_also_when_they_are_coarse(style: str, change: str) -> None:
    frame, rings = tissue(style)
    if change == "larger":
        rings = [(ring - ring.mean(axis=0)) * 1.12 + ring.mean(axis=0) for ring in rings]
    elif change == "moved":
        rings = [ring + 2 for ring in rings]
    for count in (1, 3, 12):
        image = outlined(rings[:count])
        assert placed(image, frame) == (image, "")


def test_outlines_elsewhere_are_refused_unless_they_are_taken_as_they_are() -> None:
    frame, rings = tissue("bright")
    away = [ring + 37 for ring in rings]
    with pytest.raises(MaskError, match=r"lie on nothing .*They reach .*picture is 320x240"):
        placed(outlined(away), frame)
    image = outlined(away, fit="as-is")
    assert placed(image, frame) == (image, "")
    boxes = of(Annotation(bbox_xywh=(1, 1, 5, 5)))
    assert placed(boxes, frame) == (boxes, "")  # the object in a box is looked for


def test_outlines_outside_count_against_those_inside() -> None:
    frame, rings = tissue("bright")
    with pytest.raises(MaskError, match="They reach 692,692"):
        placed(outlined([*rings[:3], *(ring + 480 for ring in rings[:9])]), frame)


def test_micrometres_are_told_by_the_size_of_a_pixel() -> None:
    frame, rings = tissue("bright")
    measured = Frame(frame.image_rgb, "a.tif", pixel_size_um=PixelSize(0.25, 0.25, None))
    scaled = outlined([ring * 0.25 for ring in rings])
    with pytest.raises(MaskError, match=r"in micrometres, and a pixel is 0\.25"):
        placed(scaled, measured)
    found, line = placed(replace(scaled, fit="scale"), measured)
    assert "scaled to pixels" in line
    assert np.allclose(found.outlines[3].polygons[0][0], rings[3])
    pixels = outlined(rings)
    assert placed(pixels, measured) == (pixels, "")


@pytest.mark.parametrize("style", ["bright", "a membrane", "texture"])
@pytest.mark.parametrize("size_um", [0.65, 0.325, 0.2])
def test_another_unit_is_told_also_where_the_size_of_a_pixel_is_not_known(
    style: str, size_um: float
) -> None:
    frame, rings = tissue(style)
    for count in (5, 12):
        with pytest.raises(MaskError, match="times as large") as refused:
            placed(outlined([ring * size_um for ring in rings[:count]]), frame)
        [factor] = re.findall(r"when they are (\S+) times", str(refused.value))
        assert float(factor) == pytest.approx(1 / size_um, rel=0.04)


def test_an_outline_without_a_pixel_does_not_hide_the_unit() -> None:
    frame, rings = tissue("bright")
    speck = np.array([(30.2, 30.2), (30.3, 30.2), (30.3, 30.3)]) * 0.1
    with pytest.raises(MaskError, match="times as large"):
        placed(outlined([speck, *(ring * 0.325 for ring in rings)]), frame)


def test_a_black_picture_is_said() -> None:
    frame, rings = tissue("bright")
    with pytest.raises(MaskError, match="one colour everywhere"):
        placed(outlined(rings), Frame(frame.image_rgb * 0, "a.png"))
