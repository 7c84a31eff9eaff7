"""Pictures, stacks and videos in; annotations both ways, one module for each format; sinks out."""

from sam_detect.io.decoding import DEFAULT_MAX_PIXELS, MAX_BYTES
from sam_detect.io.files import write_atomically, write_image
from sam_detect.io.images import (
    IMAGE_EXTENSIONS,
    cut_out_object,
    find_images,
    load_image,
    load_image_bytes,
    natural_key,
    picture_size,
    to_frame,
)
from sam_detect.io.stack_axes import PlaneRanges
from sam_detect.io.stacks import Plane, planes_at, planes_of

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
    "write_atomically",
    "write_image",
]
