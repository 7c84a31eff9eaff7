"""Finds CLIP weights on the Hugging Face hub, with the hub's own library: address, access and the
published checksum.

The bytes are then fetched by :mod:`sam_detect.models.download`: the library's own download begins
anew after a killed process.
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import urlsplit

from sam_detect.errors import DownloadError, UnavailableError
from sam_detect.models.catalogue import CLIPModel
from sam_detect.models.download import Remote, unreachable

SHA256 = re.compile(r"[0-9a-f]{64}")
NOT_FOUND = 404
DENIED = (401, 403)


def locate(model: CLIPModel, *, timeout_s: float) -> tuple[str, Remote]:
    """The name of the model's file of weights, the safe format first, and where it is.

    Raises:
        UnavailableError: huggingface_hub is not installed.
        DownloadError: the hub cannot be reached, refuses, or has no such file.
    """
    for filename in model.filenames:
        found = _look(model.hub, filename, timeout_s)
        if found is not None:
            return filename, found
    files = " or ".join(model.filenames)
    raise DownloadError(
        f"{_endpoint()}/{model.hub} has no {files} (HTTP 404): is it the right hub?"
    )


def _look(repository: str, filename: str, timeout_s: float) -> Remote | None:
    hub = _library()
    url = hub.hf_hub_url(repository, filename, endpoint=_endpoint())
    try:
        found = hub.get_hf_file_metadata(url, timeout=timeout_s)
    except Exception as error:  # requests', httpx's or its successor's, by the library's version
        if _status(error) == NOT_FOUND:
            return None
        raise _explained(repository, error) from error
    if found.commit_hash:
        url = hub.hf_hub_url(repository, filename, revision=found.commit_hash, endpoint=_endpoint())
    # Large files are named by their SHA-256 there; of others the ETag is another hash.
    published = found.etag if SHA256.fullmatch(found.etag or "") else None
    return Remote(url, published, hub.utils.build_hf_headers())


def _status(error: Exception) -> int | None:
    """The HTTP status that an error of the library is about."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _explained(repository: str, error: Exception) -> DownloadError:
    """What is wrong between here and the hub, in words."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    place, status = f"{_endpoint()}/{repository}", _status(error)
    if isinstance(error, OfflineModeIsEnabled):
        return DownloadError(
            "offline, by HF_HUB_OFFLINE: unset it to download CLIP weights; docs/models.md says "
            "how to get models without a network"
        )
    if status in DENIED:
        return DownloadError(
            f"{place} is not open to you (HTTP {status}): ask for access there, then give your "
            f"token in HF_TOKEN"
        )
    if status is not None:
        return DownloadError(f"{place}: the server refuses (HTTP {status}): try again later")
    if "Timeout" in type(error).__name__:
        return DownloadError(
            f"{urlsplit(_endpoint()).netloc} did not answer in time: try again later, or wait "
            f"longer with SAM_DETECT_DOWNLOAD_TIMEOUT_S"
        )
    return unreachable(urlsplit(_endpoint()).netloc or place, error)


def _endpoint() -> str:
    """The hub, or a mirror of it: the library's own variable, which it reads once only."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UnavailableError(
            "CLIP weights are fetched with huggingface_hub, which is not installed: "
            "pip install 'sam-detect[models]'"
        ) from error
    return huggingface_hub
