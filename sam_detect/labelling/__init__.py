"""The labelling room: names a vector by the examples near it, or says that it does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sam_detect.registry import room_attribute

if TYPE_CHECKING:
    from sam_detect.labelling.knn import KNNLabeller as KNNLabeller
    from sam_detect.labelling.prototype import PrototypeLabeller as PrototypeLabeller
    from sam_detect.labelling.text import TextLabeller as TextLabeller


def __getattr__(name: str) -> Any:
    return room_attribute("labeller", name)
