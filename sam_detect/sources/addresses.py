"""Addresses of streams: which are taken, and how they are shown without what is secret in them."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from sam_detect.errors import ConfigError

HTTP = ("http", "https")
RTSP = ("rtsp", "rtsps")

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_VALUE = re.compile(r"=[^&;]*")
_SECRET_IN_PATH = re.compile(r"(?i)((?:user|pass|pwd|token|key|auth)\w*?=)[^/&;_]*")
_UNFINISHED = re.compile(r"[^@\[\]]*:.*\D.*")
HIDDEN = "***"


def is_url(text: str) -> bool:
    """Whether a text is an address and no path."""
    return _URL.match(text) is not None


def shown(text: str) -> str:
    """An address as it may stand in a message or a file: without name, password and fragment, and
    without the values of its query, where cameras take passwords. Anything else as it is."""
    if not is_url(text):
        return text
    scheme, _, rest = text.partition("://")
    place, slash, path = re.split(r"([/?#]|$)", rest, maxsplit=1)
    if _UNFINISHED.fullmatch(place) and "@" in path:
        # A password with an unescaped / ? or #: what comes before the last @ is part of it.
        place, slash, path = re.split(r"([/?#]|$)", rest.rpartition("@")[2], maxsplit=1)
    path, mark, query = (slash + path).partition("#")[0].partition("?")
    path = _SECRET_IN_PATH.sub(rf"\1{HIDDEN}", path)
    return f"{scheme}://{place.rpartition('@')[2]}{path}{mark}{_hidden(query)}"


def _hidden(query: str) -> str:
    """A query without its values; one without names is a value itself."""
    return _VALUE.sub(f"={HIDDEN}", query) if "=" in query or not query else HIDDEN


def host_of(url: str) -> tuple[str, int]:
    """Host and port that an address of http or https is asked of."""
    parts = urlsplit(url)
    usual = 443 if parts.scheme.lower() == "https" else 80
    return (parts.hostname or "").lower(), parts.port or usual


def split(url: str) -> SplitResult:
    """The parts of an address that can be read from.

    Raises:
        ConfigError: another scheme than those above (no address may name a file of this machine),
            or no host.
    """
    name = shown(url)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"'{name}' is no valid address") from None
    if parts.scheme.lower() not in (*HTTP, *RTSP):
        raise ConfigError(
            f"'{name}': a video comes by {', '.join((*HTTP, *RTSP))}, not by "
            f"{parts.scheme.lower()}; a file is named by its path"
        )
    if not host:
        raise ConfigError(f"'{name}' names no host, as in http://host/path")
    return parts
