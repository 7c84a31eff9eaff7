"""Whether what a server needs is installed."""

from __future__ import annotations

from importlib.util import find_spec

from sam_detect.errors import UnavailableError

NEEDED = ("fastapi", "uvicorn", "websockets", "python_multipart", "prometheus_client")


def require_server() -> None:
    """Raises ``UnavailableError`` where a package of the extra ``server`` is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UnavailableError(
            f"pages and services need the extra 'server' ({', '.join(missing)} is missing): "
            "pip install 'sam-detect[server]'"
        )
