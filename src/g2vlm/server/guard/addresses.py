"""Which URLs and addresses the service may connect to for a client: public machines by https, nothing else.

A client's URL is a request that the service makes with its own rights, inside its own network. So a URL must
be plain, its host a name, and every address that the name has must be a public one; the connection then goes
to the very address that was looked at, since a second look-up could give another.
"""

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from g2vlm.server.guard.refusals import ForbiddenError, RefusedError

PORT = 443
"""The only port that is connected to."""

Resolver = Callable[[str], Sequence[str]]
"""Gives the addresses of a host's name, as text; raises OSError where there are none."""

_MOST_URL = 2048
_MOST_HOST = 253
# No userinfo, no other port, no backslash, no percent sign in the host, nothing that needs quoting.
_URL = re.compile(
    r"https://(?P<host>[a-z0-9.-]+)(?::443)?(?P<path>/[!-\[\]-~]*?)?(?P<query>\?[!-\[\]-~]*?)?(?:#[!-\[\]-~]*)?",
    re.IGNORECASE,
)
# A name has letters in its last part: what looks like a number is an address in one of its many spellings.
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?!0x)[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")

# IANA's registries of special addresses, and everything else that is no public machine.
_FORBIDDEN_4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"),
        *("192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/4", "240.0.0.0/4"),
    )
)
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
# Within the public part: Teredo and other protocols, documentation, 6to4. Outside it lie loopback,
# link-local, unique local, multicast, IPv4-mapped and -compatible, and NAT64 addresses.
_FORBIDDEN_6 = tuple(
    ipaddress.IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_ISATAP = (0x00005EFE, 0x02005EFE)


@dataclass(frozen=True)
class Target:
    """What a URL asks for."""

    host: str
    """Name of the machine, in lower case."""

    path: str
    """Path and query, beginning with a slash."""


def parse_url(url: str) -> Target:
    """Take a URL apart, if it is one that may be fetched.

    Raises:
        RefusedError: Not https, with a user name or another port, an address in place of a name, or anything
            that two programs could read in two ways.
    """
    match = _URL.fullmatch(url) if len(url) <= _MOST_URL else None
    host = "" if match is None else match["host"].lower()
    if match is None or len(host) > _MOST_HOST or not _HOST.fullmatch(host):
        raise RefusedError(
            "Expected a plain URL such as https://example.org/photo.jpg (https, a name, no user, port 443, "
            "ASCII characters), got another one: use such a URL, or send the photo itself."
        )
    return Target(host, (match["path"] or "/") + (match["query"] or ""))


def is_public(address: str) -> bool:
    """Whether an address is that of a public machine.

    Args:
        address: As a resolver gives it; anything that is no plain address is not public.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in _FORBIDDEN_4)
    if parsed.scope_id is not None or parsed not in _PUBLIC_6:
        return False
    # An IPv4 address of any kind may hide in the last bits of a tunnel's.
    is_tunnel = (int(parsed) >> 32) & 0xFFFFFFFF in _ISATAP
    return not is_tunnel and not any(parsed in network for network in _FORBIDDEN_6)


def checked_address(host: str, resolve: Resolver, timeout_s: float) -> str:
    """The address to connect to.

    Args:
        host: A name, as `parse_url` gives it.
        resolve: Looks it up.
        timeout_s: Longest time for that.

    Raises:
        ForbiddenError: One of its addresses is not public: a name that leads to both kinds was made to.
        RefusedError: It has no address, or looking it up takes too long.
    """
    addresses = _looked_up(host, resolve, timeout_s)
    if not addresses:
        raise RefusedError(f"Expected the name of a machine in a URL, but {host} cannot be found: check it.")
    # The message tells neither address nor which rule: that would map the network behind the service.
    if not all(is_public(address) for address in addresses):
        raise ForbiddenError(
            f"Expected a URL of a public machine, but {host} is none: send the photo itself."
        )
    return addresses[0]


def system_resolver(host: str) -> Sequence[str]:
    """The addresses that the system finds."""
    found = socket.getaddrinfo(host, PORT, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def _looked_up(host: str, resolve: Resolver, timeout_s: float) -> Sequence[str]:
    """Look a name up, in a thread that is left behind where it takes too long: nothing else ends it."""
    found: list[Sequence[str]] = []

    def look() -> None:
        try:
            found.append(resolve(host))
        except (OSError, UnicodeError):
            found.append(())

    thread = threading.Thread(target=look, daemon=True, name="look-up")
    thread.start()
    thread.join(max(0.0, timeout_s))
    return found[0] if found else ()
