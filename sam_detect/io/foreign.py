"""Formats of annotations that are not read: told, so that a message can name them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

ENDINGS = (".xml", ".csv", ".ndjson", ".txt")
HEAD_BYTES = 4096
PROLOGUE = re.compile(r"<\?xml.*?\?>|<!--.*?-->|<!DOCTYPE[^>]*>", re.DOTALL)
YOLO = "YOLO's rows, which lack the names of their classes (a data.yaml, classes.txt or obj.names)"
TEXTS = (
    (r"<annotations>.*<(image|track|meta)\b", "CVAT's XML"),
    (r"<annotation\b.*<(filename|folder|object)>", "Pascal VOC's XML"),
    (r"<(Annotations|ASAP_Annotations)\b", "Aperio's or ASAP's XML"),
    (r"<svg\b", "SVG"),
    (r"<[A-Za-z]", "XML"),
    (r"\d+( [\d.e+-]+){4,}[ \t]*(\r?\n|$)", YOLO),
    (r"\w[^\n{\[]*[,;\t][^\n]*\n", "CSV"),
)
"""What the beginning of a text matches, and its format's name; the first one counts."""
KEYS = {
    "VIA": ("_via_img_metadata", "filename regions"), "Datumaro": ("items categories",),
    "Supervisely": ("objects size",), "Cityscapes": ("objects imgHeight",),
    "Labelbox": ("data_row",), "V7 Darwin": ("item annotations",),
    "Label Studio's JSON": ("data annotations", "data completions", "image annotation_id"),
    "CreateML": ("image annotations",),
    "COCO results, which lack the pictures' names": ("image_id category_id",),
}  # fmt: skip
"""Keys of a file's object, of the first one of its list, or of the first one by name."""


def of_json(parsed: Any) -> str | None:
    """The name of the format of parsed JSON, or None."""
    first = next(iter(parsed), None) if isinstance(parsed, list) else parsed
    within = next(iter(first.values()), None) if isinstance(first, Mapping) else None
    rows = [set(each) for each in (first, within) if isinstance(each, Mapping)]
    for name, forms in KEYS.items():
        if any(row >= set(keys.split()) for row in rows for keys in forms):
            return name
    return None


def of_text(data: bytes) -> str | None:
    """The name of the format of a file that is no JSON, or None."""
    text = data[:HEAD_BYTES].decode(json.detect_encoding(data), "replace").lstrip("\ufeff")
    text = PROLOGUE.sub("", text).lstrip()
    return next((name for form, name in TEXTS if re.match(form, text, re.DOTALL)), None)
