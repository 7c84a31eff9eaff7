"""Pictures that a request names by their web address.

An address in a request makes this machine open a connection, perhaps into a network that is closed
to the sender (server-side request forgery). So only public addresses are connected to: each name is
looked up once, all that it stands for is checked, and the connection goes to what was checked, for
each redirect again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

import httpx

from sam_detect.errors import ConfigError, ImageError, one_line

MOST_REDIRECTS = 3
LONGEST_URL = 2000
SECONDS = 20.0
"""For a picture, its redirects included."""
SCHEMES = {"http": 80, "https": 443}
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All public addresses of IPv6 that are given to hosts (RFC 4291): others wrap addresses of
IPv4 in ways that were given up, or are of one network."""
NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""Addresses that stand for those of IPv4 (RFC 6052)."""
FOR_PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")
"""Addresses with a meaning of their own (RFC 6890); older versions of Python call some public."""

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: IPAddress) -> bool:
    """Whether an address is one of the public internet, also where it wraps another one."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.teredo is not None or address not in GLOBAL_UNICAST:
            return False
    elif address in FOR_PROTOCOLS:
        return False
    return address.is_global and not address.is_multicast


class Fetcher:
    """Fetches pictures.

    Args:
        seconds: for a picture.
        permitted: whether an address may be connected to.
    """

    def __init__(
        self,
        *,
        seconds: float = SECONDS,
        permitted: Callable[[IPAddress], bool] = is_public,
    ) -> None:
        self._seconds, self._permitted = seconds, permitted

    async def fetch(self, url: str, most_bytes: int) -> bytes:
        """The content of an address, of so many bytes at most.

        Raises:
            ConfigError: it is no address, or one that is not public.
            ImageError: it does not answer in time, answers with a failure, or has too many bytes.
        """
        try:
            return await asyncio.wait_for(self._follow(url, most_bytes), self._seconds)
        except (asyncio.TimeoutError, httpx.TimeoutException):
            raise ImageError(f"no answer within {self._seconds:g} s: {_shown(url)}") from None
        # ValueError: the name of a host, or where a redirect leads, is no such thing.
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
            reason = one_line(error) or type(error).__name__
            raise ImageError(f"cannot be fetched ({reason}): {_shown(url)}") from None

    async def _follow(self, url: str, most_bytes: int) -> bytes:
        # A proxy would look names up by itself, and a netrc file has passwords.
        async with httpx.AsyncClient(trust_env=False, timeout=self._seconds) as client:
            for _ in range(MOST_REDIRECTS + 1):
                content, following = await self._get(client, url, most_bytes)
                if following is None:
                    return content
                url = urljoin(url, following)
        raise ImageError(f"more than {MOST_REDIRECTS} redirects: {_shown(url)}")

    async def _get(
        self, client: httpx.AsyncClient, url: str, most_bytes: int
    ) -> tuple[bytes, str | None]:
        """The content, or where it is instead."""
        host, port, authority = _parts(url)
        address = await self._looked_up(host, port, url)
        pinned = httpx.URL(url).copy_with(host=address)
        headers = {"Host": authority, "Accept-Encoding": "identity", "User-Agent": "sam-detect"}
        async with client.stream(
            "GET", pinned, headers=headers, extensions={"sni_hostname": host}
        ) as answer:
            if answer.is_redirect and "location" in answer.headers:
                return b"", str(answer.headers["location"])
            if answer.status_code != 200:
                raise ImageError(f"the answer is {answer.status_code}: {_shown(url)}")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise ImageError(f"the answer is compressed, unasked: {_shown(url)}")
            content = bytearray()
            async for part in answer.aiter_raw():
                content += part
                if len(content) > most_bytes:
                    raise ImageError(f"it has more than {most_bytes} bytes: {_shown(url)}")
            return bytes(content), None

    async def _looked_up(self, host: str, port: int, url: str) -> str:
        """An address of a host; raises ``ConfigError`` where not all of its addresses may be
        connected to."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(each[4][0]).partition("%")[0] for each in found]
        for each in addresses:
            if not self._permitted(ipaddress.ip_address(each)):
                raise ConfigError(f"not a public address: {_shown(url)}; send the picture itself")
        return addresses[0]


def _parts(url: str) -> tuple[str, int, str]:
    """Host, port and authority; raises ``ConfigError`` where this is no address."""
    expected = f"an address is http:// or https://, not {_shown(url)}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(expected) from None
    if parts.scheme not in SCHEMES or not host or len(url) > LONGEST_URL:
        raise ConfigError(expected)
    if parts.username is not None or parts.password is not None:
        raise ConfigError("an address may have no password in it")
    return host, port or SCHEMES[parts.scheme], parts.netloc


def _shown(url: str) -> str:
    """An address to show, without what may be secret in it."""
    bare = url.partition("?")[0].rpartition("@")[2][:100]
    return "".join(each if each.isprintable() else "?" for each in bare)
