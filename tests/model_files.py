"""Files of weights on this machine, where models are looked for."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from sam_detect.models.catalogue import Model
from sam_detect.models.weights import cache_dir, cached_repository, models_dir

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def put(path: Path, data: bytes = b"weights") -> Path:
    """Writes a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def by_hand(model: Model, data: bytes = b"weights", number: int = 0) -> Path:
    """Puts a file where the user does; of the model's file names the one of a number."""
    return put(models_dir() / model.folder / model.filenames[number], data)


def in_cache(model: Model, data: bytes = b"weights", number: int = 0) -> Path:
    """Puts a file where ``huggingface_hub`` does."""
    cache = cache_dir()
    assert cache is not None
    repository = cached_repository(cache, model)
    blob = put(repository / "blobs" / hashlib.sha256(data).hexdigest(), data)
    put(repository / "refs" / "main", COMMIT.encode())
    path = repository / "snapshots" / COMMIT / model.filenames[number]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(blob, path.parent))
    return path
