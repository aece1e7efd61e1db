"""Answers that hold something while they are sent, and let go of it however that ends."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class ClosingStream(StreamingResponse):
    """A stream with something to close.

    A generator's own `finally` is not enough: a client that leaves before the first part is asked for leaves
    a generator that never began, and so never ends.
    """

    def __init__(
        self,
        content: AsyncIterator[bytes] | Iterator[bytes],
        close: Callable[[], None],
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare the answer.

        Args:
            content: Its parts.
            close: Called once at the end, also of an answer that was never begun; more calls must do no harm.
            media_type: Of the parts.
            headers: Of the answer.
        """
        super().__init__(content, media_type=media_type, headers=headers)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()
