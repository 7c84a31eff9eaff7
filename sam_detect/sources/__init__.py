"""Pictures in: files, folders, patterns, arrays and Pillow images become ``Frame``s."""

from sam_detect.sources.decoding import DEFAULT_MAX_PIXELS, MAX_BYTES
from sam_detect.sources.images import (
    IMAGE_EXTENSIONS,
    cut_out_object,
    find_images,
    load_image,
    load_image_bytes,
    natural_key,
    picture_size,
    to_frame,
)
from sam_detect.sources.stack_axes import PlaneRanges
from sam_detect.sources.stacks import Plane, planes_at, planes_of

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_EXTENSIONS",
    "MAX_BYTES",
    "Plane",
    "PlaneRanges",
    "cut_out_object",
    "find_images",
    "load_image",
    "load_image_bytes",
    "natural_key",
    "picture_size",
    "planes_at",
    "planes_of",
    "to_frame",
]
