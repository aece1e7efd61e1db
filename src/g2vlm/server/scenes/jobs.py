"""Scenes are computed from the store to the store; what is interrupted is computed again."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from g2vlm.errors import G2VLMError
from g2vlm.scene.scene import Scene
from g2vlm.server.engine.errors import StoppingError
from g2vlm.server.engine.looking import Look, plan_look
from g2vlm.server.engine.perceptions import Lease, PerceptionKey
from g2vlm.server.engine.work import Terms, Ticket
from g2vlm.server.guard.refusals import BusyError, CancelledError
from g2vlm.server.media.looker import Looker
from g2vlm.server.media.parts import Looking
from g2vlm.server.media.reading import digest_of
from g2vlm.server.scenes.facts import facts_of
from g2vlm.server.store.records import SceneRecord
from g2vlm.server.store.store import Store
from g2vlm.server.web.metrics import Metrics

_log = logging.getLogger(__name__)
T = TypeVar("T")

NUM_AT_ONCE = 2
"""Scenes in work: one that the engine computes, one that is read or written meanwhile."""
RETRY_S = 0.5
"""After which a busy engine is asked again."""
IDLE_S = 5.0
"""After which the store is looked at again, in any case."""
SCENE_FILE = "scene.npz"
"""The file of a scene that holds everything."""


class Job:
    """A scene that is being computed."""

    def __init__(self, record: SceneRecord) -> None:
        self.record = record
        self.share = 0.0
        self.left = threading.Event()
        """Set once nobody wants the scene any more."""
        self._give_up: Callable[[], None] | None = None

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self.left.set()
        if self._give_up is not None:
            self._give_up()

    def progress(self, share: float) -> None:
        """Note how far it is; from any thread."""
        self.share = share

    async def wait(self, ticket: Ticket[T]) -> T:
        """The result of the engine, unless the job is cancelled."""
        self._give_up = ticket.cancel
        if self.left.is_set():
            ticket.cancel()
        return await asyncio.wrap_future(ticket.future)


class SceneJobs:
    """Computes all scenes that wait; for one event loop.

    Args:
        looker: reads and perceives.
        store: has the scenes.
        metrics: told when scenes end.
        scene_seconds: longest time for a scene.
    """

    def __init__(self, looker: Looker, store: Store, metrics: Metrics, scene_seconds: int | float) -> None:
        self._looker, self._store, self._metrics, self._seconds = looker, store, metrics, scene_seconds
        self._jobs: dict[tuple[str, str], Job] = {}
        self._waits = asyncio.Event()
        self._workers: list[asyncio.Task[None]] = []
        self._threads = ThreadPoolExecutor(NUM_AT_ONCE, thread_name_prefix="g2vlm-scenes")
        self._stopping = False

    def start(self) -> None:
        """Begin with what the store has."""
        self._workers = [asyncio.create_task(self._work()) for _ in range(NUM_AT_ONCE)]

    def begin_to_stop(self) -> None:
        """Take up no more scenes; the engine must be told to stop next."""
        self._stopping = True
        self._waits.set()

    async def end(self) -> None:
        """Wait until all scenes in work are stored or handed back."""
        await asyncio.gather(*self._workers)
        self._threads.shutdown()

    def wake(self) -> None:
        """There is a new scene in the store."""
        self._waits.set()

    def progress(self, tenant: str, scene_id: str) -> float:
        """Share of a scene that is computed, 0 to 1."""
        job = self._jobs.get((tenant, scene_id))
        return 0.0 if job is None else job.share

    def cancel(self, tenant: str, scene_id: str) -> None:
        """Stop computing a scene that is not wanted any more."""
        job = self._jobs.get((tenant, scene_id))
        if job is not None:
            job.cancel()

    async def _work(self) -> None:
        while not self._stopping:
            self._waits.clear()
            try:
                job = await self._next()
            except Exception:  # noqa: BLE001  (the store may recover)
                _log.exception("No scene could be taken from the store.")
                job = None
            if job is not None:
                try:
                    await self._compute(job)
                except Exception:  # noqa: BLE001  (a full disk must not end all later scenes)
                    _log.exception("What became of scene %s could not be stored.", job.record.id)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S):
                    await self._waits.wait()

    async def _next(self) -> Job | None:
        """Take up the oldest scene of a tenant that has fewest in work."""
        waiting = await self._in_thread(self._store.scenes.waiting)
        # From here to the note in `_jobs` nothing is awaited, so that no other worker takes the same.
        waiting = tuple(one for one in waiting if (one.tenant, one.id) not in self._jobs)
        if not waiting or self._stopping:
            return None
        in_work = Counter(tenant for tenant, _ in self._jobs)
        record = min(waiting, key=lambda one: in_work[one.tenant])
        job = self._jobs[record.tenant, record.id] = Job(record)
        try:
            job.record = await self._in_thread(self._store.scenes.begin, record.tenant, record.id)
        except G2VLMError:  # deleted in the meantime
            del self._jobs[record.tenant, record.id]
            return None
        return job

    async def _compute(self, job: Job) -> None:
        scenes, record = self._store.scenes, job.record
        try:
            await self._make(job)
            state = "done"
        except StoppingError:
            await self._in_thread(scenes.hand_back, record)
            state = "handed back"
        except Exception as error:  # noqa: BLE001  (one scene must not end the others)
            if job.left.is_set():
                state = "cancelled"
            else:
                state = "failed"
                if not isinstance(error, G2VLMError):
                    _log.exception("Scene %s failed.", record.id)
                    error = RuntimeError("The service failed to compute it; its log says why.")
                await self._in_thread(scenes.fail, record, str(error))
        finally:
            del self._jobs[record.tenant, record.id]
        self._metrics.scene_ends(state)

    async def _make(self, job: Job) -> None:
        """Read, look, store."""
        record, terms = job.record, Terms.within(self._seconds)
        request = dict(record.request)
        with_questions = bool(request.pop("questions"))
        looking = Looking.model_validate(request)
        look = await self._in_thread(self._prepare, job, looking)
        if not with_questions:
            model, fit = self._looker.engine.model, look.fit
            plan = plan_look(model, look.photos)

            def reconstruct() -> Scene:
                return model.reconstruct(look.photos, fit=fit)

            engine = self._looker.engine
            ticket: Ticket[Scene] = await self._when_free(
                lambda: engine.run(
                    reconstruct,
                    cost=plan.num_tokens,
                    terms=terms,
                    num_pieces=plan.num_pieces,
                    on_progress=job.progress,
                )
            )
            scene: Scene = await job.wait(ticket)
            await self._in_thread(self._keep, job, scene)
            return
        looked = await self._when_free(lambda: self._looker.engine.look(look, terms, job.progress))
        lease: Lease = await job.wait(looked)
        with lease:
            await self._in_thread(self._keep, job, lease.perception.scene)

    async def _when_free(self, hand_in: Callable[[], Ticket[T]]) -> Ticket[T]:
        """Hand work in as soon as the engine has room: a scene that was accepted is never refused."""
        while True:
            try:
                return hand_in()
            except BusyError:
                await asyncio.sleep(RETRY_S)

    def _prepare(self, job: Job, looking: Looking) -> Look:
        record = job.record
        contents = self._looker.reader.uploaded(record.tenant, record.uploads)
        key = PerceptionKey(record.tenant, digest_of(contents, looking))
        try:
            return self._looker.prepare(key, contents, looking, lambda: self._is_over(job))
        except CancelledError:
            if self._stopping:
                raise StoppingError("The service went down before this was finished.") from None
            raise

    def _is_over(self, job: Job) -> bool:
        return self._stopping or job.left.is_set()

    def _keep(self, job: Job, scene: Scene) -> None:
        with self._store.scenes.filling(job.record) as filling:
            scene.save(filling.folder / SCENE_FILE)
            filling.about.update(facts_of(scene).model_dump())

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
