"""Annotation files for other programs: a file for each picture, the planes of a stack in one."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from sam_detect.errors import OutputError
from sam_detect.interfaces import Sink
from sam_detect.io import geojson, imagej, label_map, labelme, nimbus, nimbus_server
from sam_detect.io.files import (
    CLOSED,
    ONLY_ONE,
    ImagePaths,
    InputGuard,
    RelativeNames,
    write_atomically,
)
from sam_detect.types import AnnotatedImage, Annotation, Detections, Frame, Location
from sam_detect.types.polygons import EXACT_TOLERANCE_PX


class AnnotationSink(Sink):
    """Writes the objects of each picture into a file of its own.

    Frames of one source that follow each other are the planes of a stack: they share a file, which
    is written when another source begins, or the sink is closed.

    Args:
        output: the file; for several pictures a folder, in which files are named like them.
        multiple: whether more than one source may come.
        inputs: the images being read, which are never overwritten.
        include_unknown: whether objects without a label are written, without a tag.
        smoothing: how far outlines may be from those of the masks, in pixels. Up to .3 they cover
            exactly the same pixels.

    Raises:
        OutputError: here, in ``write`` and in ``close``, for what cannot be written.
    """

    EXTENSIONS: tuple[str, ...]

    def __init__(
        self,
        output: str | os.PathLike[str] | None = None,
        *,
        multiple: bool = False,
        inputs: Sequence[str | os.PathLike[str]] = (),
        include_unknown: bool = False,
        smoothing: float = EXACT_TOLERANCE_PX,
    ) -> None:
        self._multiple = multiple
        self._include_unknown = include_unknown
        self._smoothing = smoothing
        self._paths = ImagePaths(output, multiple=multiple, extensions=self.EXTENSIONS)
        self._guard = InputGuard(inputs)
        self._names = RelativeNames(inputs)
        self._source: str | None = None
        self._path = Path()
        self._size_hw = (0, 0)
        self._outlines: list[Annotation] = []
        self._planes: list[Location] = []
        self._written: list[Path] = []
        self._closed = False
        if not multiple and isinstance(output, (str, os.PathLike)):
            self._guard.check(Path(output))

    @abstractmethod
    def encode(self, image: AnnotatedImage, path: Path) -> bytes:
        """The content of one file."""

    def write(self, frame: Frame, detections: Detections) -> None:
        if self._closed:
            raise OutputError(CLOSED)
        self._guard.add(frame.source_id)
        if frame.source_id != self._source or frame.location in (None, *self._planes):
            if self._source is not None and not self._multiple:
                raise OutputError(ONLY_ONE)
            self._flush()
            self._path = self._paths.path_for(frame.source_id)
            self._guard.check(self._path)
            self._source, self._size_hw = frame.source_id, frame.size_hw
        if frame.size_hw != self._size_hw:
            raise OutputError(f"the planes of {frame.source_id} differ in size")
        chosen = detections if self._include_unknown else detections.known
        self._outlines += chosen.to_annotations(
            location=frame.location, tolerance_px=self._smoothing
        )
        self._planes += [] if frame.location is None else [frame.location]

    def close(self) -> list[Path]:
        if not self._closed:
            self._closed = True
            self._flush()
        return self._written

    def _flush(self) -> None:
        """Writes what is known of the last source."""
        if self._source is None:
            return
        source, self._source = self._source, None
        image = AnnotatedImage(
            source,
            self._names.of(source) or source,
            tuple(self._outlines),
            size_hw=self._size_hw,
            references={"planes": tuple(self._planes)},
        )
        self._outlines, self._planes = [], []
        self.save(image, self._path)
        self._written.append(self._path)

    def save(self, image: AnnotatedImage, path: Path) -> None:
        """Puts one file in place."""
        content = self.encode(image, path)
        write_atomically(path, lambda file: file.write(content))


class GeoJSONSink(AnnotationSink):
    """GeoJSON that QuPath opens. See :class:`AnnotationSink` for the arguments."""

    EXTENSIONS = (".geojson", ".json")

    def encode(self, image: AnnotatedImage, path: Path) -> bytes:
        return geojson.encode(image)


class ImageJSink(AnnotationSink):
    """A zip of ImageJ's regions of interest. See :class:`AnnotationSink` for the arguments."""

    EXTENSIONS = (".zip",)

    def encode(self, image: AnnotatedImage, path: Path) -> bytes:
        return imagej.encode(image)


class LabelMeSink(AnnotationSink):
    """LabelMe's JSON; it opens a file that is next to its picture. See :class:`AnnotationSink`."""

    EXTENSIONS = (".json",)

    def encode(self, image: AnnotatedImage, path: Path) -> bytes:
        return labelme.encode(image)


class LabelMapSink(AnnotationSink):
    """A picture in which each object has a number: TIFF, or PNG where that is the ending."""

    EXTENSIONS = (".tif", ".tiff", ".png")

    def encode(self, image: AnnotatedImage, path: Path) -> bytes:
        return label_map.encode(image, as_png=path.suffix.lower() == ".png")


class NimbusSink(AnnotationSink):
    """NimbusImage's JSON; with the output ``nimbus:ID`` the objects are added to the dataset of
    this id on a server. See :class:`AnnotationSink` for the arguments."""

    EXTENSIONS = (".json",)

    def __init__(
        self,
        output: str | os.PathLike[str] | None = None,
        *,
        multiple: bool = False,
        inputs: Sequence[str | os.PathLike[str]] = (),
        include_unknown: bool = False,
        smoothing: float = EXACT_TOLERANCE_PX,
    ) -> None:
        self._dataset = nimbus_server.dataset_of(output)
        super().__init__(
            output,
            multiple=multiple and self._dataset is None,
            inputs=inputs,
            include_unknown=include_unknown,
            smoothing=smoothing,
        )

    def encode(self, image: AnnotatedImage, path: Path) -> bytes:
        return nimbus.encode(image)

    def save(self, image: AnnotatedImage, path: Path) -> None:
        if self._dataset is None:
            super().save(image, path)
        else:
            nimbus_server.upload(self._dataset, image)
