"""What may stand in a cell as the location of an image, and the one way in which it is opened.

Cells are other people's: a URL in one would let them choose the file system and the host that is asked. So a path is a
path, and a URL is read only if the manifest names its protocol (`image.urls: [https]`) or its protocol and host
(`[https://images.example]`), or if it lies under a URL that the user gave as `image.root`. Addresses of this machine
and of private networks are reached only where the host is named, whatever a name server or a redirect says: that is
checked where connections are made.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import fsspec
from fsspec.core import url_to_fs

from mmfuse.data.files.read import read_bytes
from mmfuse.data.files.stores import http_timeout
from mmfuse.registry import nearest
from mmfuse.types import MmfuseError

PROTOCOLS = {"https": 443, "http": 80, "s3": None, "gs": None, "az": None, "abfs": None, "hf": None, "file": None}
"""What `image.urls` may name, with the usual port; no file system that is made of another one, or of its own text."""

ABSENT, NOT_PERMITTED = "no such file", "image.urls"
"""How a reason begins, or what it names, where nothing is at a path, or where the manifest must name a URL."""
_URL = re.compile(
    r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]{0,253})(?::(\d{1,5}))?(?=[/?#]|$)", re.IGNORECASE | re.ASCII
)
_NUMBER = re.compile(r"(\d+|0x[0-9a-f]*)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAT64 = int(IPv6Address("64:ff9b::")) >> 32
_SPECIAL = ip_network("192.0.0.0/24"), ip_network("192.88.99.0/24")
"""Not of the public internet, whatever this Python's table says; a cloud's metadata are at 192.0.0.192."""


class LocationError(MmfuseError):
    """A location that a cell may not name; the message is the reason and the key, never what the cell says."""


class _Place(NamedTuple):
    protocol: str
    host: str
    port: int | None


def check_urls(urls: Iterable[str], where: str) -> None:
    """Refuse an entry of `image.urls` that is neither a protocol nor a protocol with a host.

    Raises:
        MmfuseError: The message begins with `where` and says what is legal.
    """
    for entry in urls:
        found = _URL.fullmatch(entry)
        protocol = found[1] if found else entry
        if protocol not in PROTOCOLS:
            raise MmfuseError(
                f"{where}: image.urls: {entry!r}; {nearest(protocol, PROTOCOLS)} (or https://HOST[:PORT])"
            )
        if found and (not found[2] or _parse(entry) is None):
            raise MmfuseError(f"{where}: image.urls: {entry!r} names no host; legal: {protocol}, or {protocol}://HOST")


def place(cell: str, root: str) -> str:
    """Where a cell points to: a path that is not absolute is below the root; a URL and an absolute path stay."""
    return cell if "://" in cell or os.path.isabs(cell) else f"{root}/{cell}"


def own_urls(location: object) -> tuple[str, ...]:
    """What is permitted where a user gives a location himself: it, and where servers of the internet refer to."""
    found = _URL.match(location) if isinstance(location, str) else None
    return (found[0], found[1].lower(), *(("https",) if found[1].lower() == "http" else ())) if found else ()


def refusal(location: str, permitted: Sequence[str]) -> str | None:
    """Why a cell may not name this location; None for a path, and for a URL that is permitted.

    Args:
        location: As `place` gives it.
        permitted: Entries of `image.urls`, and URLs below which all may be read.
    """
    if "://" not in location:
        return None
    if _CONTROL.search(location):
        return "a URL with control characters is not read"
    for root in permitted:
        if "://" in root and location.startswith(f"{root.rstrip('/')}/"):
            below = location[len(root.rstrip("/")) :]
            parts = unquote(below).replace("\\", "/").split("/")
            if "::" in below or ".." in parts:
                return "a path with :: or .. does not lead out of a root that is a URL"
            return None
    if "::" in location:
        return "a URL with :: is never read: it would choose a file system made of others"
    found = _parse(location)
    if found is None:
        return "no URL that can be permitted: PROTOCOL://HOST/PATH is expected, its host in plain letters"
    return _refuse_place(found, [entry for entry in permitted if "://" not in entry or _URL.fullmatch(entry)])


def _refuse_place(found: _Place, permitted: Sequence[str]) -> str | None:
    protocol, host, _ = found
    if protocol not in PROTOCOLS:
        return "URLs of this protocol are never read from a table: copy the images, and name paths"
    if _is_named(found, permitted):
        return None
    named = f"{protocol}://{host or '...'}{f':{found.port}' if found.port != PROTOCOLS[protocol] else ''}"
    if PROTOCOLS[protocol] is not None and is_inner(host):
        return f"{named} is an address of this machine or of a private network: image.urls may name it"
    if protocol in permitted:
        return None
    return f"the manifest does not permit URLs of {named}: image.urls: [{protocol}] does, or [{named}]"


def _is_named(found: _Place, permitted: Sequence[str]) -> bool:
    return any(found == _parse(entry) for entry in permitted if "://" in entry)


def _parse(url: str) -> _Place | None:
    """Protocol, host and port as every parser sees them; None where two could differ."""
    found = _URL.match(url)
    if found is None:
        return None
    protocol, host = found[1].lower(), found[2].lower().rstrip(".")
    if protocol == "file" and host:
        return None
    port = int(found[3]) if found[3] else PROTOCOLS.get(protocol)
    if PROTOCOLS.get(protocol) is None:
        return _Place(protocol, host, port)
    if host.startswith("["):
        address = _address(host[1:-1])
        return _Place(protocol, f"[{address}]", port) if address else None
    if not host or (_NUMBER.fullmatch(host.rpartition(".")[2]) and _address(host) is None):
        return None  # 2130706433, 0x7f.1 and 017700000001 are 127.0.0.1 for some
    return _Place(protocol, host, port)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_inner(host: str) -> bool:
    """Whether a host, as it is written, is this machine, or an address that is not of the public internet."""
    address = _address(host.strip("[]"))
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    if isinstance(address, IPv6Address):
        within = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if int(address) >> 32 == _NAT64:
            within.append(IPv4Address(int(address) & 0xFFFFFFFF))
        if any(inner is not None and is_inner(str(inner)) for inner in within):
            return True
    elif any(address in network for network in _SPECIAL):
        return True
    return not address.is_global or address.is_multicast or address.is_reserved


def read_location(source: str | Path, max_bytes: int, permitted: Sequence[str] = ()) -> bytes:
    """Read a whole file that a cell names.

    Args:
        source: A path, or a URL (contains `://`).
        max_bytes: A larger file is refused.
        permitted: As for `refusal`; by default no URL is.

    Raises:
        LocationError: It may not be read.
        MmfuseError: As `read_bytes`: the reason only, without the path.
    """
    if isinstance(source, Path) or "://" not in source:
        try:
            return read_bytes(source, max_bytes)
        except MmfuseError as error:
            hint = absent_hint(str(source)) if str(error) == ABSENT else ""
            raise MmfuseError(f"{error}{hint}") from error
    why = refusal(source, permitted)
    if why is not None:
        raise LocationError(why)
    return read_bytes(source, max_bytes, lambda url: _open_system(url, tuple(permitted)))


def absent_hint(path: str) -> str:
    """Of a path where nothing is, what may be meant: in brackets after a space, or ""."""
    if "\\" in path:
        return " (its cell has backslashes, as on Windows: write / between folders, below image.root)"
    stem, suffix = os.path.splitext(path)
    others = {
        suffix.lower(),
        suffix.upper(),
        suffix.title(),
        *((".jpg", ".jpeg") if suffix in (".jpg", ".jpeg") else ()),
    }
    there = [os.path.basename(stem + other) for other in sorted(others) if os.path.lexists(stem + other)]
    return f" (there is {there[0]})" if there else ""


def _open_system(url: str, permitted: tuple[str, ...]) -> tuple[Any, str]:
    protocol = url.partition("://")[0].lower()
    if protocol in ("http", "https"):
        return fsspec.filesystem(protocol, get_client=_Guarded(permitted)), url
    return url_to_fs(url)


@dataclass(frozen=True)
class _Guarded:
    """Makes fsspec's HTTP client one that asks before each connection; equal ones share their client."""

    permitted: tuple[str, ...]

    async def __call__(self, **options: Any) -> Any:
        import aiohttp  # only here: it takes a quarter of a second

        permitted = self.permitted

        class Resolver(aiohttp.ThreadedResolver):
            """Tells no address of a private network, unless the host is named; aiohttp connects to what it tells."""

            async def resolve(self, host: str, port: int = 0, *args: Any, **kwargs: Any) -> Any:
                found = await super().resolve(host, port, *args, **kwargs)
                name = host.lower().rstrip(".")
                if not any(_is_named(_Place(protocol, name, port), permitted) for protocol in ("http", "https")) and (
                    any(is_inner(one["host"].partition("%")[0]) for one in found)
                ):
                    raise LocationError(
                        f"{name} has an address of this machine or of a private network: image.urls may name it"
                    )
                return found

        class Connector(aiohttp.TCPConnector):
            """Asks at each request, so at each redirect too."""

            async def connect(self, req: Any, *args: Any, **kwargs: Any) -> Any:
                found = _parse(str(req.url))
                why = "no URL that can be permitted" if found is None else _refuse_place(found, permitted)
                if why is not None:
                    raise LocationError(why)
                return await super().connect(req, *args, **kwargs)

        given = {"timeout": http_timeout(), **options}
        return aiohttp.ClientSession(connector=Connector(resolver=Resolver()), **given)
