"""Requests that a web page makes behind its visitor's back.

A browser runs pages from anywhere, on a machine from which the service may be reached without a key or with
one that the browser remembers. What a page can do to other sites, sending forms and renaming itself so that
its own name leads to this machine, must not work here.
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from g2vlm.server.guard.refusals import ForbiddenError

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def check_origin(method: str, origin: str | None, host: str | None, allowed: Collection[str]) -> None:
    """Refuse what a foreign page would change; its reading is refused by the browser itself.

    Args:
        method: Of the request.
        origin: Its header `Origin`, which browsers send with everything that changes something.
        host: Its header `Host`.
        allowed: Pages that may call, such as "https://page.example".

    Raises:
        ForbiddenError: A page of another origin.
    """
    if origin is None or method in _READING or origin in allowed:
        return
    scheme, _, place = origin.partition("://")
    if scheme in ("http", "https") and host and place.lower() == host.lower():
        return
    raise ForbiddenError(
        f"Expected a request of this service's own pages, got one of {origin[:100]}: the operator can allow "
        "that page."
    )


def check_local_host(host: str | None) -> None:
    """Refuse names that only an attacker would give to a service of this machine alone.

    A page can let its own name lead to 127.0.0.1 after it was loaded, and is then of one origin with the
    service. It cannot call itself localhost, or an address.

    Args:
        host: The header `Host`.

    Raises:
        ForbiddenError: Another name.
    """
    try:
        name = urlsplit(f"//{host or ''}").hostname or ""
        if name == "localhost" or name.endswith(".localhost"):
            return
        ipaddress.ip_address(name)
    except ValueError as error:
        raise ForbiddenError(
            "Expected this machine by address or as localhost, got another name: use http://127.0.0.1, or "
            "serve with API keys."
        ) from error
