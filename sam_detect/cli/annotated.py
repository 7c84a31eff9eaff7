"""Annotated pictures for ``sam-detect learn``: files of annotations, and what was taken of them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sam_detect.cli.feedback import Failures, LearningReport, note
from sam_detect.cli.options import refuse

if TYPE_CHECKING:
    from sam_detect.api import SAMDetect
    from sam_detect.evaluation.dataset import Dataset
    from sam_detect.io import PlaneRanges
    from sam_detect.pipeline.batch import Prepared
    from sam_detect.types import AnnotatedImage, Frame, Masks

NOT_GIVEN = "annotated, but not among the pictures"
"""How readers end their line about a picture of the file that was not given."""
IN_TWO_SPLITS = "it is in train, too"
"""How the reader of YOLO ends its line about a picture that it takes from one split only."""
HARMLESS = ("it has no object", "taken to hold no object", "passed over", "turned boxes")
"""How readers of datasets end a line about what lacks nothing of the pictures at hand."""
GUESSED = "guessed outlines are not learnt: --preview PICTURE shows, --accept-guess learns them"


class Preview:
    """The pictures of ``--preview``.

    Args:
        output: a file for one picture; a folder for several, or where it has no ending.
        paths: the files of the pictures, which are never overwritten.
        several: whether there are several pictures.
    """

    def __init__(self, output: str, paths: list[str], *, several: bool) -> None:
        from sam_detect.io.files import ImagePaths, InputGuard

        self._files = ImagePaths(output, multiple=several or not Path(output).suffix)
        self._inputs = InputGuard(paths)

    def write(self, frame: Frame, masks: Masks, boxes: list[list[float]]) -> None:
        from sam_detect.io import write_image
        from sam_detect.io.overlay import draw_preview

        path = self._files.path_for_frame(frame)
        self._inputs.check(path)
        write_image(path, draw_preview(frame.image_rgb, masks, boxes))
        note(f"wrote {path}")


def _yolo_dataset(file: Path) -> Dataset | None:
    """A YOLO folder, or the file with the names of its classes; None for other annotations."""
    from sam_detect.evaluation.readers import open_dataset, yolo

    return None if yolo.settings_file(file) is None else open_dataset(file)


def _of_dataset(dataset: Dataset, paths: list[str]) -> tuple[list[AnnotatedImage], list[str]]:
    """What a dataset says of the pictures at hand, and a line for each thing left out."""
    from sam_detect.types import AnnotatedImage, Annotation

    at_hand = {Path(path).resolve(): path for path in paths}
    found = []
    problems = [each for each in dataset.problems if not each.endswith(IN_TWO_SPLITS)]
    for picture in dataset.pictures:
        path = at_hand.get(picture.path.resolve())
        outlines = tuple(
            Annotation((o.label,), mask_rle=o.mask_rle, bbox_xywh=o.bbox_xywh, id=o.id,
                       corners_xy=o.corners_xy)
            for o in picture.objects
            if not o.crowd
        )  # fmt: skip
        if path is not None:
            found.append(AnnotatedImage(path, str(picture.id), outlines))
        elif outlines:
            problems.append(f"{picture.id}: {NOT_GIVEN}")
    return found, problems


class Annotations:
    """The outlines and labels of a file of annotations.

    Args:
        file: the file, or a folder of such.
        paths: the pictures.
        failures: gets what has to be left out.
        tag: only annotations with this one, unless None.
        label: of those without a tag.
        named: what all of them are called instead.
        whole: whether all annotated pictures should be there.
        centres: whether coordinates are those of pixels' centres.
        pieces: whether outlines in pieces are one object or several; None: as the file says.
        ranges: planes and channels of stacks; annotations in other planes are left out.
        max_pixels: larger planes are refused.
        fit: what is done with outlines that do not fit their picture.
    """

    def __init__(
        self,
        file: Path,
        paths: list[str],
        failures: Failures,
        tag: str | None,
        label: str | None,
        *,
        named: str | None = None,
        whole: bool,
        centres: bool,
        pieces: str | None,
        ranges: PlaneRanges,
        max_pixels: int,
        fit: str,
    ) -> None:
        from sam_detect.io.annotated_planes import annotated_planes
        from sam_detect.io.annotation_files import choose, read_annotations

        self.failures = failures
        self.by_name: dict[str, list[AnnotatedImage]] = {}
        if (dataset := _yolo_dataset(file)) is None:
            annotated, problems = read_annotations(
                file, paths, tag=tag, label=label, pixel_centres=centres, pieces=pieces, fit=fit
            )
        else:
            annotated, problems = _of_dataset(dataset, paths)
            annotated = [replace(each, fit=fit) for each in annotated]
            annotated = choose(annotated, problems, file, tag=tag, label=label, pieces=pieces)
            refuse("rows of YOLO are shares of the picture", "pixel_centres")
        if ranges:
            annotated = annotated_planes(
                annotated, ranges, problems, elsewhere=False, max_pixels=max_pixels
            )
        for given in annotated:
            tags = None if named is None else (named,)
            outlines = tuple(replace(each, tags=tags or each.tags) for each in given.outlines)
            image = replace(given, outlines=outlines)
            self.by_name.setdefault(image.name, []).append(image)
        for name, rows in [*self.by_name.items()]:
            sizes = {each.size_hw for each in rows if each.size_hw is not None}
            if len(sizes) > 1:
                shown = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
                problems.append(f"{name}: {file} has it in several sizes ({shown}): keep one")
                del self.by_name[name]
        elsewhere = [] if whole else [text for text in problems if text.endswith(NOT_GIVEN)]
        if elsewhere:
            note(f"{file} has annotated pictures that were not given: {len(elsewhere)}")
        for problem in problems:
            if problem in elsewhere or named is not None:  # they were said already
                continue
            if problem.endswith(HARMLESS):
                note(f"warning: {file}: {problem}")
            else:
                failures.add(str(file), problem)

    @property
    def tags(self) -> set[str | None]:
        """All that its outlines are called."""
        every = (each for rows in self.by_name.values() for each in rows)
        return {tag for image in every for one in image.outlines for tag in one.tags}

    def learn(
        self,
        detector: SAMDetect,
        paths: Iterable[str],
        report: LearningReport,
        shown: Preview | None,
        workers: int | None,
    ) -> None:
        """Learns the outlines of the pictures; what cannot be used is named, left out."""
        from sam_detect.pipeline.batch import default_workers

        wanted = default_workers(detector.pipeline, len(self.by_name))
        answers = detector.prepare_each(
            map(self._merged, self.by_name),
            workers=wanted if workers is None else min(workers, max(1, len(self.by_name))),
            negative=report.negative,
            exhaustive=report.exhaustive,
            with_frames=shown is not None,
            accept_guess=report.accept_guess,
        )
        with closing(answers):
            for path in paths:
                answer = next(answers)
                with self.failures.guard(path):
                    prepared = answer.get()
                    self._note_problems(prepared)
                    if shown is not None and prepared.frame is not None:
                        shown.write(prepared.frame, prepared.masks, [])
                    report.learn_prepared(detector, prepared)

    def _merged(self, name: str) -> AnnotatedImage:
        """All outlines of one picture, which may be annotated under several names."""
        first, *others = self.by_name[name]
        return replace(first, outlines=sum((each.outlines for each in others), first.outlines))

    def _note_problems(self, prepared: Prepared) -> None:
        path, guessed = prepared.image.name, prepared.guessed
        for line in prepared.notes:
            note(f"{path}: {line}")
        for problem in prepared.problems:
            self.failures.add(path, problem)
        if guessed:
            note(
                f"warning: {path}: no object that was proposed fits {len(guessed)} of "
                f"{len(prepared.image.outlines)} boxes (number {', '.join(map(str, guessed[:8]))}"
                f"{', ...' if len(guessed) > 8 else ''}), so the outlines are guesses"
            )
            if len(prepared.masks) > len(prepared.labels):
                self.failures.add(path, GUESSED)
