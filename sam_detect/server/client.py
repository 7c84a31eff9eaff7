"""A client of ``sam-detect serve``, with the results that ``SAMDetect`` gives."""

from __future__ import annotations

import io
import json
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, overload

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image

from sam_detect.errors import (
    ConfigError,
    ImageError,
    LibraryBusyError,
    LibraryError,
    MaskError,
    NotFoundError,
    SamDetectError,
    UnavailableError,
)
from sam_detect.types import Classification, Detections, Masks, Neighbour
from sam_detect.types.masks import MaskRLE, checked_rle, rle_to_crop

ImageLike = str | Path | bytes | IO[bytes] | Image.Image | npt.NDArray[np.uint8]
BUSY = (429, 503)
BAD_PICTURE = 422
STREAMED_AHEAD = 2
"""Pictures of a stream that are sent before the answer to the first of them is there."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 20.0
ERRORS: dict[int, type[SamDetectError]] = {
    401: ConfigError, 403: ConfigError, 404: NotFoundError, 409: LibraryError, 413: ImageError,
    421: ConfigError, 422: ConfigError, 429: LibraryBusyError, 503: LibraryBusyError,
}  # fmt: skip


class Client:
    """Asks a service.

    Args:
        url: of the service, such as ``http://127.0.0.1:8001``.
        token: where it needs one.
        timeout: seconds to wait for an answer.
        patience: seconds for which a request is tried again while the service is busy.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 120.0,
        patience: float = 60.0,
    ) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        self._url, self._patience = url, patience

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- pictures ----------------------------------------------------------------------------

    @overload
    def detect(
        self, image: list[ImageLike], *, library: str | None = ..., threshold: float | None = ...,
        unknown: bool = ...,
    ) -> list[Detections]: ...  # fmt: skip
    @overload
    def detect(
        self, image: ImageLike, *, library: str | None = ..., threshold: float | None = ...,
        unknown: bool = ...,
    ) -> Detections: ...  # fmt: skip
    def detect(
        self,
        image: ImageLike | list[ImageLike],
        *,
        library: str | None = None,
        threshold: float | None = None,
        unknown: bool = False,
    ) -> Detections | list[Detections]:
        """Detects and labels the objects of a picture, or of each of several.

        Args:
            image: a path, a PIL image, or an array (BGR, as OpenCV's); or a list of these.
            library: None: that of the service.
            threshold: least confidence for a label, 0 to 1.
            unknown: whether objects without a label are given, too.

        Returns:
            What ``SAMDetect.detect`` gives; a list for a list.

        Raises:
            ImageError: a picture cannot be read.
            SamDetectError: what the service says.
        """
        several = image if isinstance(image, list) else [image]
        files = [("images", _file(each, index)) for index, each in enumerate(several)]
        query = {"library": library, "threshold": threshold, "unknown": unknown}
        answer = self._ask("POST", "/v1/detect", files=files, params=_given(query))
        found = []
        for each in answer.json()["results"]:
            if "problem" in each:
                raise ImageError(str(each["problem"]["detail"]))
            found.append(detections_of(each))
        return found if isinstance(image, list) else found[0]

    def learn(
        self,
        image: ImageLike,
        label: str,
        *,
        boxes_xywh: Sequence[Sequence[float]] = (),
        points_xy: Sequence[Sequence[float]] = (),
        masks: Sequence[MaskRLE] = (),
        polygons_xy: Sequence[Sequence[Sequence[float]]] = (),
        negative: bool = False,
        accept_guess: bool = False,
        library: str | None = None,
    ) -> dict[str, Any]:
        """Learns the objects of a picture; in the library, durably, when it returns.

        Args:
            image: as of :meth:`detect`.
            label: the name of all of them.
            boxes_xywh: ``x, y, width, height`` in pixels, each around one object.
            points_xy: ``x, y`` in pixels, each on one object.
            masks: each of one object, as the ``mask_rle`` of a detection.
            polygons_xy: the corners of the outline of each of some objects, ``x, y`` in pixels.
            negative: learn that these are *not* a ``label``.
            accept_guess: learn the outline of a box that nothing fits, too, which is a guess.
            library: is made if it does not exist; None: that of the service.

        Returns:
            ``added``, ``total``, ``batch``, ``warnings`` and the ``boxes_xywh`` that were taken.
        """
        request = {
            "label": label, "boxes_xywh": [list(map(float, box)) for box in boxes_xywh],
            "points_xy": [list(map(float, point)) for point in points_xy], "negative": negative,
            "masks": list(masks), "accept_guess": accept_guess, "library": library,
            "polygons_xy": [[list(map(float, p)) for p in polygon] for polygon in polygons_xy],
        }  # fmt: skip
        files, data = [("image", _file(image, 0))], {"request": json.dumps(request)}
        answer: dict[str, Any] = self._ask("POST", "/v1/examples", files=files, data=data).json()
        return answer

    def stream(
        self,
        images: Iterable[ImageLike],
        *,
        library: str | None = None,
        threshold: float | None = None,
        unknown: bool = False,
    ) -> Iterator[Detections | ImageError]:
        """Detects in pictures that come one after another, such as those of a camera, over one
        connection; the next one is sent while one is worked on.

        Args:
            images: each as of :meth:`detect`; the others, too.

        Yields:
            The detections of each picture, in their order; an error for one that cannot be read.

        Raises:
            UnavailableError: no answer, or the connection is lost.
            SamDetectError: what the service says.
        """
        from websockets.exceptions import ConnectionClosed, InvalidStatus
        from websockets.sync.client import connect

        query = _given({"library": library, "threshold": threshold, "unknown": unknown})
        url = self._http.base_url.join("v1/stream").copy_merge_params(query)
        scheme = "wss" if url.scheme == "https" else "ws"
        token = self._http.headers.get("Authorization")
        try:
            with connect(
                str(url.copy_with(scheme=scheme)), max_size=None, proxy=None,
                additional_headers={} if token is None else {"Authorization": token},
            ) as socket:  # fmt: skip
                waiting = 0
                for index, image in enumerate(images):
                    socket.send(_file(image, index)[1])
                    waiting += 1
                    if waiting > STREAMED_AHEAD:
                        yield _streamed(socket.recv())
                        waiting -= 1
                for _ in range(waiting):
                    yield _streamed(socket.recv())
        except InvalidStatus as refused:
            raise _refusal(refused.response.status_code, refused.response.body) from None
        except (ConnectionClosed, OSError) as error:
            raise self._no_answer(error) from error

    # -- libraries ---------------------------------------------------------------------------

    def libraries(self) -> list[str]:
        """Their names."""
        return list(self._ask("GET", "/v1/libraries").json()["libraries"])

    def stats(self, library: str) -> dict[str, Any]:
        """What ``library stats --json`` prints."""
        return dict(self._ask("GET", f"/v1/libraries/{library}").json())

    def undo(self, library: str, batch: str | None = None) -> dict[str, Any]:
        """Takes a learning batch back: that of :meth:`learn`'s answer, or the last one, perhaps of
        another user; what was taken back."""
        query = _given({"batch": batch})
        return dict(self._ask("POST", f"/v1/libraries/{library}/undo", params=query).json())

    # -- jobs --------------------------------------------------------------------------------

    def submit(
        self, images: Sequence[ImageLike] = (), *, folder: str | None = None, **options: Any
    ) -> Job:
        """Begins a job: of pictures, or of a folder below the root of the service.

        Args:
            options: ``library``, ``threshold`` and ``unknown``, as of :meth:`detect`.
        """
        if folder is not None:
            answer = self._ask("POST", "/v1/jobs", json={"folder": folder, **options})
        else:
            files = [("images", _file(each, index)) for index, each in enumerate(images)]
            data = {"request": json.dumps(options)}
            answer = self._ask("POST", "/v1/jobs", files=files, data=data)
        made = answer.json()
        for each in made.get("warnings", ()):
            warnings.warn(each, stacklevel=2)
        return Job(self, str(made["id"]))

    def _ask(self, method: str, path: str, **content: Any) -> httpx.Response:
        """An answer that is a success; asks again while the service is busy."""
        end, pause = time.monotonic() + self._patience, FIRST_PAUSE_SECONDS
        while True:
            try:
                answer = self._http.request(method, path, **content)
            except httpx.HTTPError as error:
                raise self._no_answer(error) from error
            if answer.status_code not in BUSY or time.monotonic() + pause > end:
                break
            told = answer.headers.get("Retry-After", "")
            time.sleep(max(pause, float(told)) if told.isdigit() else pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        if answer.is_success:
            return answer
        raise _refusal(answer.status_code, answer.content)

    def _no_answer(self, error: Exception) -> UnavailableError:
        return UnavailableError(
            f"no answer from {self._url} ({type(error).__name__}): is the service running?"
        )


class Job:
    """A job of a service.

    Args:
        client: asks.
        id: of the job.
    """

    def __init__(self, client: Client, id: str) -> None:  # noqa: A002 - its name
        self._client, self.id = client, id

    @property
    def state(self) -> dict[str, Any]:
        """``state``, ``done``, ``total``, ``problems`` and ``warnings``."""
        return dict(self._client._ask("GET", f"/v1/jobs/{self.id}").json())

    def wait(self, *, poll: float = 0.5) -> dict[str, Any]:
        """Its state when it has ended; asks every ``poll`` seconds."""
        while (state := self.state)["state"] not in ("done", "cancelled"):
            time.sleep(poll)
        return state

    def results(self, start: int = 0) -> Iterator[Detections | ImageError]:
        """What was found so far in each picture, in their order; an error for one that cannot be
        read."""
        lines = self._client._ask("GET", f"/v1/jobs/{self.id}/results", params={"start": start})
        for each in map(json.loads, lines.text.splitlines()):
            problem = each.get("problem")
            yield detections_of(each) if problem is None else ImageError(str(problem["detail"]))

    def cancel(self) -> dict[str, Any]:
        """Ends it, or removes it where it has ended."""
        return dict(self._client._ask("DELETE", f"/v1/jobs/{self.id}").json())


def detections_of(data: dict[str, Any]) -> Detections:
    """The detections that :meth:`Detections.to_dict` made plain data of.

    What the service warned of is warned of.

    Raises:
        MaskError: an outline is malformed.
    """
    for each in data.get("warnings", ()):
        warnings.warn(each, stacklevel=3)
    size_hw = int(data["height"]), int(data["width"])
    boxes, crops, scores, classifications = [], [], [], []
    for each in data["detections"]:
        rle = checked_rle(each["segmentation"])
        if tuple(rle["size"]) != size_hw:
            raise MaskError("an outline is not of its picture's size")
        box, crop = rle_to_crop(rle)
        boxes.append(box)
        crops.append(crop)
        scores.append(each["score"])
        neighbours = tuple(
            Neighbour(n["id"], n["label"], n["similarity"], n.get("negative", False))
            for n in each["neighbours"]
        )
        classifications.append(
            Classification(each["label"], each["best_label"], each["confidence"], neighbours)
        )
    masks = Masks.from_crops(
        size_hw=size_hw, boxes_xyxy=np.array(boxes, np.int64).reshape(-1, 4), crops=crops,
        predicted_ious=np.array(scores, np.float32),
    )  # fmt: skip
    return Detections(
        str(data["image"]), masks, tuple(classifications), recipe=data["recipe"],
        timings_ms=data["timings_ms"], check=data.get("check", ""),
    )  # fmt: skip


def _refusal(status: int, body: bytes | bytearray | None) -> SamDetectError:
    """The error that a problem is."""
    try:
        detail = str(json.loads(body or b"")["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"the service answered {status}"
    return ERRORS.get(status, SamDetectError)(detail)


def _streamed(message: str | bytes) -> Detections | ImageError:
    """What an answer of a stream says; raises what is no fault of the picture."""
    answer = json.loads(message)
    problem = answer.get("problem")
    if problem is None:
        return detections_of(answer)
    if problem["status"] != BAD_PICTURE:
        raise _refusal(problem["status"], json.dumps(problem).encode())
    return ImageError(str(problem["detail"]))


def _file(image: ImageLike, index: int) -> tuple[str, bytes]:
    """A picture as a name and the content of a file; arrays without loss."""
    if isinstance(image, (str, Path)):
        try:
            return Path(image).name, Path(image).read_bytes()
        except OSError as error:
            raise ImageError(f"cannot read {image}: {error.strerror}") from error
    if isinstance(image, (bytes, bytearray, memoryview)):
        return f"image-{index}", bytes(image)
    if hasattr(image, "read"):
        return f"image-{index}", bytes(image.read())
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ImageError(f"an array needs shape (H, W, 3) uint8, got {image.shape}")
        image = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
    data = io.BytesIO()
    image.save(data, "PNG")
    return f"image-{index}.png", data.getvalue()


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}
