"""Pictures in: files, folders, patterns, arrays and Pillow images become ``Frame``s."""

from sam_detect.sources.images import (
    DEFAULT_MAX_BYTES,
    DEFAULT_MAX_PIXELS,
    FolderSource,
    ImageSource,
    cut_out_object,
    load_image,
    load_image_bytes,
    load_mask_from_alpha,
    picture_size,
    to_frame,
)
from sam_detect.sources.paths import IMAGE_EXTENSIONS, find_images, is_image_path
from sam_detect.sources.pixels import alpha_mask

__all__ = [
    "DEFAULT_MAX_BYTES",
    "DEFAULT_MAX_PIXELS",
    "IMAGE_EXTENSIONS",
    "FolderSource",
    "ImageSource",
    "alpha_mask",
    "cut_out_object",
    "find_images",
    "is_image_path",
    "load_image",
    "load_image_bytes",
    "load_mask_from_alpha",
    "picture_size",
    "to_frame",
]
