"""All parts of a running service, put together."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import Request

import g2vlm
from g2vlm.pipeline import Model
from g2vlm.server.engine.engine import Engine, EngineLimits
from g2vlm.server.engine.work import Priority, Terms
from g2vlm.server.guard.keys import KeyRing
from g2vlm.server.media.looker import Looker
from g2vlm.server.media.reading import MediaReader
from g2vlm.server.ports import Decoder, Fetch
from g2vlm.server.scenes.jobs import SceneJobs
from g2vlm.server.settings import Settings
from g2vlm.server.store.store import Store
from g2vlm.server.web.identity import TenantShares, tenant_of
from g2vlm.server.web.metrics import Metrics

_log = logging.getLogger(__name__)

SWEEP_S = 60.0
"""Between two removals of what has expired."""
_MOST_RUNNING = 64


class Service:
    """A model that answers over HTTP, and everything around it.

    Args:
        model: loaded.
        settings: of the operator.
        decoder: of photos and videos.
        fetch: of addresses; none where they are not allowed.

    Raises:
        InputError: the key file or the data folder cannot be used.
    """

    def __init__(self, model: Model, settings: Settings, decoder: Decoder, fetch: Fetch | None) -> None:
        limits = settings.limits
        self.model, self.settings, self.limits = model, settings, limits
        self.keys = None if settings.keys is None else KeyRing(settings.keys)
        self.store = Store(settings.data, limits)
        self.metrics = Metrics()
        self.engine = Engine(
            model,
            EngineLimits(
                num_running=_MOST_RUNNING, num_waiting=limits.queue_length, cache_bytes=limits.cache_bytes
            ),
        )
        self.metrics.watch(self.engine)
        self._decoder = decoder
        self.looker = Looker(self.engine, MediaReader(decoder, self.store, limits, fetch), limits)
        self.jobs = SceneJobs(self.looker, self.store, self.metrics, limits.scene_seconds)
        self._shares = TenantShares(limits)
        self.is_ready = False
        self.started_s = time.time()
        self.fingerprint = f"g2vlm-{g2vlm.__version__}-{model.placement.precision.value}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve while the block runs; its end waits for work that soon ends."""
        self.engine.start()
        self.jobs.start()
        sweeping = asyncio.create_task(self._sweep())
        self.is_ready = True
        try:
            yield
        finally:
            self.begin_to_stop()
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping
            await asyncio.to_thread(self.engine.stop, self.settings.grace_s)
            await self.jobs.end()
            self.looker.close()
            self._decoder.close()
            self.store.close()

    def begin_to_stop(self) -> None:
        """Take up no more scenes, and say that the service is not ready; in the event loop."""
        self.is_ready = False
        self.jobs.begin_to_stop()

    async def tenant(self, request: Request) -> AsyncIterator[str]:
        """Dependency of endpoints: the tenant of a request, which counts among its requests until its end."""
        tenant = tenant_of(request, self.keys)
        async with self._shares.share(tenant):
            yield tenant

    def terms(self, *, priority: Priority = Priority.NORMAL) -> Terms:
        """Those of a request that begins now."""
        return Terms.within(self.limits.request_seconds, priority)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await asyncio.to_thread(self.store.sweep)
            except Exception:  # noqa: BLE001  (the next time may go well)
                _log.exception("What has expired could not be removed.")
