"""Fetching a photo from a client's URL, within limits of address, size and time."""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urljoin

from g2vlm.server.guard.addresses import PORT, Resolver, Target, checked_address, parse_url, system_resolver
from g2vlm.server.guard.limits import Limits
from g2vlm.server.guard.refusals import CancelledError, RefusedError, TooLargeError

Connect = Callable[[str, float], socket.socket]
"""Connects to port 443 of an address within so many seconds."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BLOCK = 1 << 16
_HEADERS = {"User-Agent": "g2vlm", "Accept": "image/*", "Accept-Encoding": "identity", "Connection": "close"}


@dataclass(frozen=True)
class Fetched:
    """What a URL gave."""

    content: bytes
    """All bytes."""

    media_type: str | None
    """As the other machine declared it."""


def connect_system(address: str, timeout_s: float) -> socket.socket:
    """Connect to an address as the system does; no proxy of the environment is asked."""
    return socket.create_connection((address, PORT), timeout_s)


class Fetcher:
    """Fetches photos for clients. Thread-safe; a call blocks its thread."""

    def __init__(
        self,
        limits: Limits,
        *,
        resolve: Resolver = system_resolver,
        connect: Connect = connect_system,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Set up.

        Args:
            limits: Of bytes, seconds and redirects.
            resolve: Looks up names.
            connect: Connects to an address that was checked.
            context: Whose certificates are believed; those that the system believes if None.
        """
        self._limits = limits
        self._resolve = resolve
        self._connect = connect
        self._context = context or ssl.create_default_context()
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2

    def fetch(self, url: str, is_cancelled: Callable[[], bool] = lambda: False) -> Fetched:
        """Fetch a photo; redirects are followed, each checked like the first URL.

        Args:
            url: From a client.
            is_cancelled: Asked between blocks.

        Raises:
            RefusedError: A URL that may not be fetched, or that gives no photo in time.
            ForbiddenError: It leads to a machine that is not public.
            TooLargeError: More bytes than the limits allow.
            CancelledError: `is_cancelled` said yes.
        """
        deadline_s = time.monotonic() + self._limits.url_seconds
        for _ in range(self._limits.url_redirects + 1):
            target = parse_url(url)
            try:
                result = self._visit(target, deadline_s, is_cancelled)
            except (OSError, http.client.HTTPException, ValueError) as error:
                if isinstance(error, RefusedError):
                    raise
                # Details of the connection would tell a client about machines that it cannot see.
                reason = "took too long" if time.monotonic() >= deadline_s else "failed"
                raise RefusedError(
                    f"Expected a photo from {target.host}, but fetching it {reason}: check the URL, or send "
                    "the photo itself."
                ) from error
            if isinstance(result, Fetched):
                return result
            url = urljoin(f"https://{target.host}{target.path}", result)
        raise RefusedError(
            f"Expected at most {self._limits.url_redirects} redirects, got more: use the last URL."
        )

    def _visit(self, target: Target, deadline_s: float, is_cancelled: Callable[[], bool]) -> Fetched | str:
        """One request; the photo, or where it has moved."""
        address = checked_address(target.host, self._resolve, deadline_s - time.monotonic())
        with self._connected(target.host, address, deadline_s) as tls:
            connection = http.client.HTTPConnection(target.host)
            connection.sock = tls
            connection.request("GET", target.path, headers=_HEADERS)
            response = connection.getresponse()
            if response.status in _REDIRECTS and (location := response.headers.get("Location")):
                return str(location)
            if response.status != 200:
                raise RefusedError(
                    f"Expected a photo from {target.host}, got the status {response.status}: check the URL."
                )
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise RefusedError(f"Expected a photo as it is from {target.host}, got it compressed.")
            content = self._body(response, deadline_s, is_cancelled)
            return Fetched(content, response.headers.get("Content-Type"))

    @contextmanager
    def _connected(self, host: str, address: str, deadline_s: float) -> Iterator[ssl.SSLSocket]:
        """A connection to exactly this address, whose certificate must be the name's."""
        remaining_s = deadline_s - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        plain = self._connect(address, remaining_s)
        with contextlib.closing(plain):
            plain.settimeout(max(0.01, deadline_s - time.monotonic()))
            tls = self._context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
            with contextlib.closing(tls), _ended_at(tls, deadline_s):
                tls.do_handshake()
                yield tls

    def _body(
        self, response: http.client.HTTPResponse, deadline_s: float, is_cancelled: Callable[[], bool]
    ) -> bytes:
        """The content, counted while it arrives: what a header says about its length is a claim."""
        most, blocks, size = self._limits.url_bytes, [], 0
        if (response.length or 0) > most:
            raise TooLargeError(f"Expected at most {most} bytes from a URL, got {response.length}.")
        while block := response.read1(_BLOCK):
            size += len(block)
            if size > most:
                raise TooLargeError(f"Expected at most {most} bytes from a URL, got more.")
            if is_cancelled():
                raise CancelledError("Fetching was cancelled.")
            blocks.append(block)
        # A connection that was cut at the deadline looks like one that ended well.
        if time.monotonic() >= deadline_s:
            raise TimeoutError
        if response.length:
            raise ConnectionError("the connection ended early")
        return b"".join(blocks)


@contextmanager
def _ended_at(connection: ssl.SSLSocket, deadline_s: float) -> Iterator[None]:
    """Cut a connection at a time: the time-out of a socket begins anew with every byte that drips in."""

    def cut() -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline_s - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
