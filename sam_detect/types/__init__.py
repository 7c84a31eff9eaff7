"""The nouns: what flows between the rooms. Arrays are validated once, where they are built."""

from sam_detect.types.annotations import AnnotatedImage, Annotation, Location
from sam_detect.types.examples import (
    ExampleArrays,
    HardNegativeArrays,
    Hit,
    Neighbour,
    Point,
    Recipe,
)
from sam_detect.types.explanation import Explanation
from sam_detect.types.frames import (
    RATED_BY_EXAMPLES,
    Candidates,
    Coordinates,
    Crop,
    FadedCrop,
    Frame,
    ImageRGB,
    Index,
    Masks,
    PixelSize,
    Selection,
    Taught,
    Volume,
)
from sam_detect.types.hints import NO_HINTS, Areas, ExampleCrops, HintName, Hints
from sam_detect.types.memory import LabelMemory
from sam_detect.types.results import Classification, Detection, Detections, TrackedFrame
from sam_detect.types.similarity import Similarity, SimilarityMap

__all__ = [
    "NO_HINTS",
    "RATED_BY_EXAMPLES",
    "AnnotatedImage",
    "Annotation",
    "Areas",
    "Candidates",
    "Classification",
    "Coordinates",
    "Crop",
    "Detection",
    "Detections",
    "ExampleArrays",
    "ExampleCrops",
    "Explanation",
    "FadedCrop",
    "Frame",
    "HardNegativeArrays",
    "HintName",
    "Hints",
    "Hit",
    "ImageRGB",
    "Index",
    "LabelMemory",
    "Location",
    "Masks",
    "Neighbour",
    "PixelSize",
    "Point",
    "Recipe",
    "Selection",
    "Similarity",
    "SimilarityMap",
    "Taught",
    "TrackedFrame",
    "Volume",
]
