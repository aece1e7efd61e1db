"""Who asks."""

import base64
import binascii
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from g2vlm.server.guard.keys import LOCAL_TENANT, KeyRing
from g2vlm.server.guard.limits import Limits
from g2vlm.server.guard.refusals import BusyError


def tenant_of(request: Request, keys: KeyRing | None) -> str:
    """The tenant whose key a request carries; the local one where there are no keys.

    Browsers cannot send a bearer token with an address that is typed, so the key is taken as the password of
    HTTP's basic authentication as well; the user's name means nothing.

    Raises:
        NotAuthenticatedError: no key, or none that is valid.
    """
    if keys is None:
        tenant = LOCAL_TENANT
    else:
        tenant = keys.check(as_bearer(request.headers.get("authorization"))).tenant
    request.state.tenant = tenant
    return tenant


def as_bearer(authorization: str | None) -> str | None:
    """The header `Authorization` with a key, which may have come as a password."""
    scheme, _, rest = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return authorization
    try:
        _, _, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return f"Bearer {password}"


class TenantShares:
    """Counts the requests of each tenant that are in work; for one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.concurrent_per_tenant
        self._open: Counter[str] = Counter()

    @asynccontextmanager
    async def share(self, tenant: str) -> AsyncIterator[None]:
        """Count one request while the block runs.

        Raises:
            BusyError: the tenant has too many already.
        """
        if self._open[tenant] >= self._most:
            raise BusyError(f"Expected at most {self._most} requests of one tenant in work at a time.")
        self._open[tenant] += 1
        try:
            yield
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]
