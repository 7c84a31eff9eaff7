"""CLIP's image embedding of the faded crop (Radford et al. 2021), by ``open_clip``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sam_detect.errors import UnavailableError
from sam_detect.interfaces import Embedder
from sam_detect.models.clip import encode_images, encode_texts, find_clip, name_of, shared_clip
from sam_detect.models.running import (
    NAMES_OF_DTYPES,
    BatchSize,
    in_batches,
    precision,
    resolve_device,
    resolve_dtype,
    unit_rows,
)
from sam_detect.models.sharing import LOADED_FROM
from sam_detect.types import FadedCrop
from sam_detect.types.masks import FloatArray

DEFAULT_MODEL = "openai/clip-vit-base-patch32"
BATCH_ON_CPU, BATCH_ON_GPU = 8, 64
TEXTS_AT_ONCE = 256


class CLIPEmbedder(Embedder):
    """The image embedding of the faded crop by a CLIP model, of length 1.

    Args:
        model_name: open_clip's ``MODEL/TAG``, a Hugging Face id, ``clip-vit-b``, or the path of a
            file of weights whose name begins with open_clip's name of its architecture.
        device: auto, cpu, cuda or mps.
        batch_size: crops per batch; None: chosen for the device.
        dtype: fp32, exact also on GPUs; bf16 or fp16 (autocast, and TF32 for the rest): faster on
            GPUs, with other vectors.
        weights: a file of weights; None: the installed weights of this name.
        digest: that the weights must have, from a library's recipe.

    Raises:
        UnknownNameError: no model has this name.
        UnavailableError: the weights or the device are not on this machine, or the weights are
            not those of the digest.
    """

    name = "clip"
    version = 1
    # typical of crops of one label; a library estimates its own from its examples
    prior_similarity = 0.85

    def __init__(
        self,
        model_name: str = DEFAULT_MODEL,
        device: str = "auto",
        batch_size: int | None = None,
        dtype: str = "fp32",
        *,
        weights: str | Path | None = None,
        digest: str | None = None,
    ) -> None:
        file = None if weights is None else Path(weights).expanduser().resolve()
        where = resolve_device(device)
        found = find_clip(model_name, file)
        self._loaded = shared_clip(found, device=where)
        if digest not in (None, self._loaded.digest):
            raise UnavailableError(
                f"the weights of the CLIP model '{model_name}' in {found.path} are not those that "
                f"the library was made with: bring those back, or reindex it"
            )
        self._dtype = resolve_dtype(dtype, where)
        self._batch = BatchSize(
            batch_size or (BATCH_ON_CPU if where.type == "cpu" else BATCH_ON_GPU)
        )
        self._parameters: dict[str, Any] = {"digest": self._loaded.digest}
        if self._loaded.config_digest is None:
            self._parameters["model_name"] = name_of(found)
        else:  # a file of the user's own: the recipe keeps its name and its digests
            LOADED_FROM[self._loaded.digest] = str(found.path.absolute())
            self._parameters["config_digest"] = self._loaded.config_digest
        if file is not None or self._loaded.config_digest is not None:
            self._parameters["file"] = found.path.name
        if self._dtype != torch.float32:
            self._parameters["dtype"] = NAMES_OF_DTYPES[self._dtype]
        self.input_side = self._loaded.input_side

    @property
    def dimension(self) -> int:
        return self._loaded.dimension

    @property
    def text_scale(self) -> float:
        """Learnt factor of the similarities to texts before a softmax."""
        return self._loaded.scale

    def parameters(self) -> dict[str, Any]:
        return dict(self._parameters)

    def embed(self, crops: Sequence[FadedCrop]) -> FloatArray:
        if not crops:
            return np.zeros((0, self.dimension), np.float32)
        return unit_rows(in_batches(self._run, crops, self._batch), self._loaded.name)

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """``(N, D)`` float32 of length 1, comparable with the vectors of crops."""
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        return unit_rows(in_batches(self._run_texts, texts, TEXTS_AT_ONCE), self._loaded.name)

    def _run(self, crops: Sequence[FadedCrop]) -> torch.Tensor:
        images = [Image.fromarray(crop.image_rgb) for crop in crops]
        with precision(self._loaded.device, self._dtype):
            return encode_images(self._loaded, images)

    def _run_texts(self, texts: Sequence[str]) -> torch.Tensor:
        with precision(self._loaded.device, self._dtype):
            return encode_texts(self._loaded, texts)
