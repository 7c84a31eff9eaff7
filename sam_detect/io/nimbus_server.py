"""Annotations straight from and to a NimbusImage server, by its client ``nimbusimage``.

A dataset is named ``nimbus:ID``. The client takes the server's address from ``NI_API_URL`` and the
credentials from ``NI_API_KEY`` or ``NI_TOKEN``. Numbers of an object are values of one property,
:data:`~sam_detect.io.nimbus.OWN`.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from typing import Any

from sam_detect.errors import ImageError, MaskError, OutputError
from sam_detect.io.nimbus import OWN, own_id, to_annotation, to_object
from sam_detect.registry import needing_extra
from sam_detect.types import AnnotatedImage, Annotation

ADDRESS = re.compile(r"nimbus:([0-9A-Za-z]{1,64})")
BATCH = 1_000
MAX_OBJECTS = 2_000_000


def dataset_of(name: str | os.PathLike[str] | None) -> str | None:
    """The id of the dataset that ``nimbus:ID`` names; None for other names."""
    found = None if name is None else ADDRESS.fullmatch(str(name))
    return None if found is None else found[1]


def download(dataset: str, problems: list[str]) -> list[AnnotatedImage]:
    """The annotations of a dataset as one picture without a name.

    Raises:
        ImageError: the server cannot be reached, or refuses.
        UnavailableError: the client is not installed.
    """

    def ask() -> list[AnnotatedImage]:
        found = _connect(dataset)
        names = {str(each.id): each.name for each in found.properties.list()}
        rows = found.properties.get_values()
        values = {str(row.get("annotationId")): row.get("values") for row in rows}
        outlines = []
        for number, each in enumerate(islice(found.annotations.iter_all(), MAX_OBJECTS), start=1):
            try:
                outlines.append(to_annotation(each.to_dict(), names, values))
            except MaskError as error:
                problems.append(f"annotation {own_id(each.to_dict(), number)}: {error}")
        return [AnnotatedImage("", "", tuple(outlines))]

    found: list[AnnotatedImage] = _asked(dataset, ask, ImageError)
    return found


def upload(dataset: str, image: AnnotatedImage) -> None:
    """Adds the objects to a dataset, all of them or none.

    Raises:
        OutputError: the server cannot be reached, or refuses; what was added is removed again.
        UnavailableError: the client is not installed.
    """

    def send() -> None:
        from nimbusimage.models import Annotation as Row

        found = _connect(dataset)
        ids: list[str] = []
        try:
            given = [_row(each, number, dataset) for number, each in enumerate(image.outlines)]
            for start in range(0, len(given), BATCH):
                rows = given[start : start + BATCH]
                made = found.annotations.create_many([Row.from_dict(row) for row in rows])
                ids += [str(each.id) for each in made]
            numbers = [_numbers(each) for each in image.outlines]
            if any(numbers):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a dataset that is in no collection
                    own = found.properties.get_or_create(OWN)
                found.properties.submit_values(
                    own.id, {key: each for key, each in zip(ids, numbers, strict=True) if each}
                )
        except BaseException:
            with suppress(Exception):
                found.annotations.delete_many(ids)
            raise

    _asked(dataset, send, OutputError)


def delete(dataset: str, ids: Iterable[str]) -> None:
    """Removes annotations by their ids.

    Raises:
        OutputError: the server cannot be reached, or refuses.
        UnavailableError: the client is not installed.
    """
    gone = [str(each) for each in ids]
    _asked(dataset, lambda: _connect(dataset).annotations.delete_many(gone), OutputError)


def _row(annotation: Annotation, number: int, dataset: str) -> dict[str, Any]:
    row = to_object(annotation, number)
    return {k: v for k, v in row.items() if k not in ("_id", "id")} | {"datasetId": dataset}


def _numbers(annotation: Annotation) -> dict[str, float]:
    return {k: v for k, v in annotation.properties.items() if not isinstance(v, str)}


def _connect(dataset: str) -> Any:
    import nimbusimage

    return nimbusimage.connect().dataset(dataset)


def _asked(dataset: str, ask: Callable[[], Any], error_type: type[Exception]) -> Any:
    """What the server answers. Errors of its client become one line, without credentials."""
    with needing_extra("a dataset on a NimbusImage server"):
        import girder_client
        import requests
    try:
        return ask()
    except (girder_client.HttpError, girder_client.AuthenticationError) as error:
        reason = f"the server answers {getattr(error, 'status', error)}"
    except requests.RequestException as error:
        reason = f"the server cannot be reached ({type(error).__name__})"
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
    raise error_type(
        f"nimbus:{dataset}: {reason}; check NI_API_URL, NI_API_KEY and the id of the dataset"
    )
