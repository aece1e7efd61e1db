"""Looking at the photos of a request, with everything that was seen before."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fastapi import Request

from g2vlm.server.engine.engine import Engine
from g2vlm.server.engine.looking import Look, plan_look
from g2vlm.server.engine.perceptions import Lease, PerceptionKey
from g2vlm.server.engine.work import Terms
from g2vlm.server.guard.limits import Limits
from g2vlm.server.guard.refusals import TooLargeError
from g2vlm.server.media.parts import Looking
from g2vlm.server.media.reading import Content, MediaReader, Part, digest_of, fit_of
from g2vlm.server.web.waiting import result_of, unless_client_leaves

T = TypeVar("T")


class Looker:
    """Reads photos and has them perceived; for one event loop.

    Args:
        engine: perceives.
        reader: reads.
        limits: of the service.
    """

    def __init__(self, engine: Engine, reader: MediaReader, limits: Limits) -> None:
        self.engine, self.reader, self._limits = engine, reader, limits
        # Requests wait here before they decode, so that few pictures are in memory at a time.
        self._threads = ThreadPoolExecutor(limits.decoding_workers, thread_name_prefix="g2vlm-media")

    def close(self) -> None:
        """Read nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def in_thread(self, work: Callable[..., T], *arguments: object) -> Awaitable[T]:
        """Do something that blocks beside the event loop."""
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def look(
        self, request: Request, tenant: str, parts: Sequence[Part], looking: Looking, terms: Terms
    ) -> Lease:
        """Perceive the photos of a request, unless they were before.

        Returns:
            A lease, which must be released.

        Raises:
            ClientLeftError: the client has left.
            G2VLMError: photos that cannot be used, or a service that is busy.
        """
        finding = self.in_thread(self.reader.contents, tenant, parts)
        contents = await unless_client_leaves(request, finding, _nothing)
        return await self.look_at(request, tenant, contents, looking, terms)

    async def look_at(
        self, request: Request, tenant: str, contents: Sequence[Content], looking: Looking, terms: Terms
    ) -> Lease:
        """As `look`, of what was found."""
        key = PerceptionKey(tenant, digest_of(contents, looking))
        if lease := self.engine.perceptions.lease(key):
            return lease
        left = threading.Event()
        reading = self.in_thread(self.prepare, key, contents, looking, lambda: left.is_set() or terms.is_over)
        look = await unless_client_leaves(request, reading, left.set)
        return await result_of(request, self.engine.look(look, terms))

    def prepare(
        self,
        key: PerceptionKey,
        contents: Sequence[Content],
        looking: Looking,
        is_cancelled: Callable[[], bool],
    ) -> Look:
        """Decode photos for the engine.

        Raises:
            G2VLMError: photos that cannot be used, or too many.
        """
        model, fit = self.engine.model, fit_of(looking)
        photos = self.reader.photos(contents, looking, model.reduction(fit, asking=True), is_cancelled)
        num_tokens = plan_look(model, photos).num_tokens
        if num_tokens > self._limits.prompt_tokens:
            raise TooLargeError(
                f"Expected photos and a question of at most {self._limits.prompt_tokens} tokens, but these "
                f"{len(photos.photos)} views take {num_tokens}: send fewer, or set max_views."
            )
        return Look(key, photos, fit)


def _nothing() -> None:
    """Reading a file is soon over; what comes of it is dropped."""
