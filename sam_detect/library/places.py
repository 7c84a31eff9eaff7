"""Where libraries live: which store, and which collection, a library's name means."""

from __future__ import annotations

from sam_detect.config import Settings
from sam_detect.interfaces import VectorStore
from sam_detect.parts import make_store

DEFAULT_LIBRARY = "default"
DEFAULT_COLLECTION = "sam_detect"


def collection_of(library: str) -> str:
    """The collection of a library: its own name, and ``sam_detect`` for the default one."""
    return DEFAULT_COLLECTION if library == DEFAULT_LIBRARY else library


def library_of(collection: str) -> str:
    return DEFAULT_LIBRARY if collection == DEFAULT_COLLECTION else collection


def open_store(settings: Settings) -> VectorStore:
    """The store that the settings name: embedded Qdrant unless a server or memory is asked for."""
    return make_store(settings, collection_of(settings.library))


def list_libraries(settings: Settings) -> list[str]:
    """Names of the libraries at the place the settings name."""
    from sam_detect.vector_store import qdrant

    if settings.qdrant_url:
        found = qdrant.server_collections(settings.qdrant_url, settings.qdrant_api_key)
    else:
        found = qdrant.embedded_collections(qdrant.libraries_dir())
    return sorted(library_of(collection) for collection in found)
