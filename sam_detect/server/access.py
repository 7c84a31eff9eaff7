"""Who may ask a server: this machine, or who knows its token. And whether servers can run here."""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import urlsplit

from sam_detect.errors import ConfigError, UnavailableError

TOKEN = "SAM_DETECT_TOKEN"  # noqa: S105 - the name of a variable
HOST = "127.0.0.1"
"""Where pages are served unless another address is asked for."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
LEAST_TOKEN = 16
NEEDED = ("fastapi", "uvicorn", "websockets", "python_multipart", "prometheus_client")
"""The packages of the extra ``server``."""


@dataclass(frozen=True)
class Access:
    """The rules of one server.

    Attributes:
        host: address that it listens on.
        token: that every request needs; None: none, which is allowed on loopback only.

    Raises:
        ConfigError: another address without a token, or a token that is too short.
    """

    host: str
    token: str | None = None

    @classmethod
    def of_environment(cls, host: str) -> Access:
        """The rules of a server on an address, with the token of the environment, if it has one."""
        return cls(host, os.environ.get(TOKEN) or None)

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise ConfigError(
                f"{self.host} can be reached from other machines, so requests need a token: set "
                f"{TOKEN}, for example to {secrets.token_urlsafe(24)}"
            )
        if self.token is not None and len(self.token) < LEAST_TOKEN:
            raise ConfigError(f"a token needs {LEAST_TOKEN} characters or more")

    def refusal(
        self, *, host: str, origin: str | None, site: str | None, authorization: str | None
    ) -> tuple[int, str] | None:
        """Status and reason if a request is refused; None where it may go on.

        Args:
            host: as its header ``Host`` has it. Without a token only names of loopback are right:
                a page elsewhere may make a name of its own lead here (DNS rebinding).
            origin: its header ``Origin``: a page of another origin may ask nothing, also where it
                could not read the answer: work would be done for it.
            site: its header ``Sec-Fetch-Site``: browsers send it with each request, also where they
                send no origin (pictures, links, frames).
            authorization: its header of this name, ``Bearer TOKEN``.
        """
        if self.token is None:
            if _name_in(host) not in LOOPBACK_NAMES:
                return 421, f"this server is for this machine, not for '{host[:100]}'"
        else:
            kind, _, given = (authorization or "").partition(" ")
            same = hmac.compare_digest(given.strip().encode(), self.token.encode())
            if kind.casefold() != "bearer" or not same:
                return 401, "a token is needed: Authorization: Bearer TOKEN"
        from_here = origin in (None, f"http://{host}", f"https://{host}")
        if not from_here or site not in (None, "same-origin", "none"):
            return 403, "the request comes from another page"
        return None


def _name_in(host: str) -> str | None:
    """The name in a header ``Host``, without the port; None where it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_server() -> None:
    """Raises ``UnavailableError`` where a package of the extra ``server`` is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UnavailableError(
            f"pages and services need the extra 'server' ({', '.join(missing)} is missing): "
            "pip install 'sam-detect[server]'"
        )
