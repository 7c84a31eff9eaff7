"""Where libraries live: which store, and which collection, a library's name means."""

from __future__ import annotations

from sam_detect.config import Settings
from sam_detect.interfaces import VectorStore
from sam_detect.registry import load_class

DEFAULT_LIBRARY = "default"
DEFAULT_COLLECTION = "sam_detect"


def collection_of(library: str) -> str:
    """The collection of a library: its own name, and ``sam_detect`` for the default one."""
    return DEFAULT_COLLECTION if library == DEFAULT_LIBRARY else library


def library_of(collection: str) -> str:
    return DEFAULT_LIBRARY if collection == DEFAULT_COLLECTION else collection


def open_store(settings: Settings) -> VectorStore:
    """The store that the settings name: embedded Qdrant unless a server or memory is asked for."""
    name = settings.store or "qdrant"
    store_class = load_class("store", name)
    if name != "qdrant":
        made: VectorStore = store_class()
        return made
    made = store_class(
        url=settings.qdrant_url,
        # A key in the environment says nothing of an embedded library.
        api_key=settings.qdrant_api_key if settings.qdrant_url else None,
        collection_name=collection_of(settings.library),
        lock_timeout_s=settings.lock_timeout_s,
    )
    return made


def list_libraries(settings: Settings) -> list[str]:
    """Names of the libraries at the place the settings name."""
    from sam_detect.vector_store import qdrant

    if settings.qdrant_url:
        found = qdrant.server_collections(settings.qdrant_url, settings.qdrant_api_key)
    else:
        found = qdrant.embedded_collections(qdrant.libraries_dir())
    return sorted(library_of(collection) for collection in found)
