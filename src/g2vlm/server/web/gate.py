"""What every request passes first: a name for the logs, limits of size, time and number.

At its end it leaves a line in the log.
"""

import asyncio
import logging
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from g2vlm.server.guard.keys import KeyRing
from g2vlm.server.guard.limits import Limits
from g2vlm.server.guard.logging import request_context
from g2vlm.server.guard.origins import check_local_host, check_origin
from g2vlm.server.guard.refusals import BusyError, RefusedError
from g2vlm.server.settings import Settings
from g2vlm.server.web.errors import CLIENT_LEFT, error_response, response_of
from g2vlm.server.web.identity import as_bearer
from g2vlm.server.web.metrics import Metrics

_log = logging.getLogger("g2vlm.server.requests")

REQUEST_ID = "X-Request-Id"
UPLOADS_PATH = "/v1/uploads"
_MULTIPART_BYTES = 1 << 20
"""What a form may take beside its files."""
_ALWAYS_OPEN = ("/health", "/metrics")
"""Answered however busy the service is."""
_OPEN_TO_STRANGERS = (*_ALWAYS_OPEN, "/openapi.json")
"""Answered without a key: they hold nothing of a tenant."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Gate:
    """An ASGI application around another one.

    Args:
        app: what is behind it.
        settings: of the service.
        metrics: told about every request.
        keys: that open the service; none asks for none.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, keys: KeyRing | None) -> None:
        self._app, self._settings, self._metrics, self._keys = app, settings, metrics, keys
        self._limits = settings.limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with request_context(Headers(scope=scope).get(REQUEST_ID)) as name:
            passage = _Passage(name, scope, (receive, send), self._limits)
            start = time.monotonic()
            self._metrics.request_begins()
            try:
                refusal = self._refusal(scope)
                await (refusal or self._app)(scope, passage.receive, passage.send)
            except Exception:
                passage.status = passage.status or 500
                raise
            finally:
                self._end(scope, passage, time.monotonic() - start)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        """The answer to a request that is not let in."""
        header_bytes = sum(len(name) + len(value) for name, value in scope["headers"])
        if header_bytes > self._limits.header_bytes:
            return error_response(431, f"Expected headers of at most {self._limits.header_bytes} bytes.")
        length = Headers(scope=scope).get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            return error_response(400, "Expected a number of bytes as Content-Length.")
        most = most_bytes(scope["path"], self._limits)
        if int(length[:20]) > most:
            return error_response(413, f"Expected a body of at most {most} bytes, got {length[:20]}.")
        busy = self._metrics.num_open > self._limits.concurrent_requests
        if busy and not scope["path"].startswith(_ALWAYS_OPEN):
            return response_of(BusyError("Expected room for a request, but too many are in work."))
        try:
            self._admit(scope)
        except RefusedError as error:
            return response_of(error)
        return None

    def _admit(self, scope: Scope) -> None:
        """Look at who asks, before anything of the body is read: strangers cannot fill memory or disk.

        Raises:
            RefusedError: a stranger, or a foreign page in a visitor's browser.
        """
        headers, method = Headers(scope=scope), scope["method"]
        if self._settings.local_only:
            check_local_host(headers.get("host"))
        check_origin(method, headers.get("origin"), headers.get("host"), self._settings.origins)
        # Browsers ask with OPTIONS, without a key, whether a page may ask; no endpoint does anything at it.
        is_open = scope["path"].startswith(_OPEN_TO_STRANGERS) or method == "OPTIONS"
        if self._keys is not None and not is_open:
            self._keys.check(as_bearer(headers.get("authorization")))

    def _end(self, scope: Scope, passage: "_Passage", seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        status = passage.status or CLIENT_LEFT
        self._metrics.request_ends(route, method, status, seconds)
        state = scope.get("state", {})
        facts = {
            "tenant": state.get("tenant"),
            "method": method,
            "route": route,
            "status": status,
            "seconds": round(seconds, 4),
            "bytes_in": passage.num_bytes,
        }
        _log.info("%s %s %d", method, route, status, extra=facts)


class _Passage:
    """One request on its way through."""

    def __init__(self, name: str, scope: Scope, ends: tuple[Receive, Send], limits: Limits) -> None:
        self.id = name
        self.status: int | None = None
        self.num_bytes = 0
        self._receive, self._send = ends
        self._most = most_bytes(scope["path"], limits)
        patience = limits.body_seconds * (10 if scope["path"] == UPLOADS_PATH else 1)
        self._end = time.monotonic() + patience
        self._is_read = False

    async def receive(self) -> Message:
        if self._is_read:
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, self._end - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, "Expected the whole request to arrive sooner.") from None
        self.num_bytes += len(message.get("body", b""))
        if self.num_bytes > self._most:
            raise HTTPException(413, f"Expected a body of at most {self._most} bytes, got more.")
        self._is_read = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID] = self.id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


def most_bytes(path: str, limits: Limits) -> int:
    """Largest body of a request to a path."""
    if path == UPLOADS_PATH:
        return max(limits.video_bytes, limits.image_bytes) + _MULTIPART_BYTES
    return limits.request_bytes
