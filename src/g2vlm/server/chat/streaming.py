"""An answer, or several, sent piece by piece while it grows."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from fastapi import Request

from g2vlm.server.chat.replies import Head, token_logprobs, usage
from g2vlm.server.chat.schemas import ChatRequest
from g2vlm.server.engine.answering import Asking, FullAnswer, Piece
from g2vlm.server.engine.perceptions import Lease
from g2vlm.server.engine.work import Terms, Ticket
from g2vlm.server.service import Service
from g2vlm.server.web.errors import ClientLeftError, described, error_content
from g2vlm.server.web.events import END, event
from g2vlm.server.web.waiting import unless_client_leaves

_Told = tuple[int, Piece | FullAnswer | Exception]


class AnswerStream:
    """The events of one request, from the engine's thread to the client.

    Args:
        service: that answers.
        request: of the client.
        body: what it asked.
        head: what all parts say.
        lease: of the photos, released at the end.
    """

    def __init__(
        self, service: Service, request: Request, body: ChatRequest, head: Head, lease: Lease
    ) -> None:
        self._service, self._request, self._body = service, request, body
        self._head, self._lease = head, lease
        self._told: asyncio.Queue[_Told] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._tickets: list[Ticket[FullAnswer]] = []

    def begin(self, questions: Sequence[Asking], terms: Terms) -> None:
        """Hand the questions in; errors of this come before anything is sent.

        Raises:
            BusyError: too much waits.
        """
        try:
            for index, asking in enumerate(questions):
                ticket = self._service.engine.ask(
                    self._lease.perception, asking, terms, partial(self._tell, index)
                )
                ticket.future.add_done_callback(partial(self._end, index))
                self._tickets.append(ticket)
        except BaseException:
            self.stop()
            raise

    def _tell(self, index: int, what: Piece | FullAnswer | Exception) -> None:
        """From the engine's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._told.put_nowait, (index, what))

    def _end(self, index: int, future: Any) -> None:
        error = future.exception()
        self._tell(index, future.result() if error is None else error)

    async def events(self) -> AsyncIterator[bytes]:
        """What is sent; the answers end as soon as the client has left."""
        answers: dict[int, FullAnswer] = {}
        try:
            for index in range(len(self._tickets)):
                yield self._chunk(index, {"role": "assistant", "content": "", "refusal": None})
            while len(answers) < len(self._tickets):
                index, what = await unless_client_leaves(self._request, self._told.get(), self.stop)
                if isinstance(what, Exception):
                    status, message, param, code = described(what)
                    yield event(error_content(status, message, param=param, code=code))
                    return
                if isinstance(what, Piece):
                    yield self._chunk(index, {"content": what.text}, piece=what)
                    continue
                answers[index] = what
                yield self._chunk(index, {}, reason=what.reason.value)
            numbers = usage(self._service, self._lease, [answers[i] for i in sorted(answers)])
            if self._wants_usage:
                yield event({**self._common(), "choices": [], "usage": numbers.model_dump()})
            yield END
        except ClientLeftError:
            return
        finally:
            self.stop()

    @property
    def _wants_usage(self) -> bool:
        options = self._body.stream_options
        return options is not None and bool(options.include_usage)

    def _common(self) -> dict[str, Any]:
        return {
            "id": self._head.id,
            "object": "chat.completion.chunk",
            "created": self._head.created,
            "model": self._head.model,
            "system_fingerprint": self._service.fingerprint,
        }

    def _chunk(
        self, index: int, delta: dict[str, Any], *, piece: Piece | None = None, reason: str | None = None
    ) -> bytes:
        logprobs = None
        if piece is not None and self._body.logprobs:
            tokens = token_logprobs(self._service.model.tokenizer, piece.token_ids, piece.log_probabilities)
            logprobs = {"content": [token.model_dump() for token in tokens], "refusal": None}
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        content = {**self._common(), "choices": [choice]}
        if self._wants_usage:
            content["usage"] = None
        return event(content)

    def stop(self) -> None:
        """Write nothing more and let go of the photos; more than once does nothing."""
        for ticket in self._tickets:
            ticket.cancel()
        self._lease.release()
