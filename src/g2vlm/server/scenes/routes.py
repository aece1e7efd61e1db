"""The endpoints of scenes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as InPath
from fastapi.responses import StreamingResponse
from starlette.convertors import StringConvertor, register_url_convertor

from g2vlm.inference.sampling import Sampling
from g2vlm.scene.measurement import Measurement, RegionSize
from g2vlm.scene.scene import Scene as RealScene
from g2vlm.scene.view import PixelSpace
from g2vlm.server.chat.completions import check_question, num_passes
from g2vlm.server.chat.replies import usage
from g2vlm.server.engine.answering import Asking
from g2vlm.server.engine.perceptions import Lease
from g2vlm.server.guard.refusals import ConflictError, NotFoundError
from g2vlm.server.media.parts import SCENE_ID, Looking
from g2vlm.server.media.uploads import Deleted, store_content
from g2vlm.server.scenes.exporting import OpenFile, endings, file_name, kinds, make_file, stored_scene
from g2vlm.server.scenes.facts import body_of
from g2vlm.server.scenes.schemas import (
    AskRequest,
    DepthQuery,
    DistanceQuery,
    Measured,
    MeasureRequest,
    Scene,
    SceneAnswer,
    SceneList,
    SceneRequest,
)
from g2vlm.server.service import Service
from g2vlm.server.store.records import JobState, SceneRecord
from g2vlm.server.web.closing import ClosingStream
from g2vlm.server.web.errors import documented
from g2vlm.server.web.events import EVENTS, event
from g2vlm.server.web.json_body import GuardedRoute
from g2vlm.server.web.waiting import client_leaves, result_of


class _WordConvertor(StringConvertor):
    """A part of a path without a dot: a file of a scene must not pass for a scene of a longer name."""

    regex = "[^/.]+"


register_url_convertor("word", _WordConvertor())
SceneId = Annotated[str, InPath(pattern=SCENE_ID, description="As `POST /v1/scenes` gave it.")]
_TELL_S = 0.2
"""Between two looks at how far a scene is."""
_STILL_THERE_S = 15.0
"""After so much silence a comment tells proxies that the stream is alive."""
_PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src data: blob:; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_BYTES = {"schema": {"type": "string", "format": "binary"}}


def scenes_router(service: Service) -> APIRouter:
    """`/v1/scenes` and `/view`."""
    router = APIRouter(tags=["scenes"], route_class=GuardedRoute)
    add_scene_endpoints(router, service)
    add_file_endpoints(router, service)
    add_question_endpoints(router, service)
    return router


def add_scene_endpoints(router: APIRouter, service: Service) -> None:
    """Asking for scenes, looking at them, removing them."""
    scenes = service.store.scenes

    @router.post(
        "/v1/scenes",
        status_code=202,
        response_model=Scene,
        responses={202: {"description": "It waits.", "links": _links()}, **documented(415, 507)},
    )
    async def create_scene(
        body: SceneRequest, request: Request, tenant: str = Depends(service.tenant)
    ) -> Scene:
        """Reconstruct photos or a video. Returns at once; the scene is computed in its turn."""
        record = await service.looker.in_thread(_add_scene, service, tenant, body)
        service.jobs.wake()
        return body_of(record, 0.0)

    @router.get("/v1/scenes", response_model=SceneList, responses=documented())
    async def list_scenes(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[str | None, Query(pattern=SCENE_ID, description="Only older ones.")] = None,
        tenant: str = Depends(service.tenant),
    ) -> SceneList:
        """Scenes, newest first."""
        found = await asyncio.to_thread(scenes.list, tenant, limit, before)
        return SceneList(data=[_body(service, record) for record in found])

    @router.get(
        "/v1/scenes/{scene_id}/events", response_class=StreamingResponse, responses=_stream_responses()
    )
    async def watch_scene(
        scene_id: SceneId, request: Request, tenant: str = Depends(service.tenant)
    ) -> StreamingResponse:
        """How far a scene is, as server-sent events `progress`, until one of `done` or `failed`."""
        record = await asyncio.to_thread(scenes.get, tenant, scene_id)
        return StreamingResponse(_progress(service, request, record), media_type="text/event-stream")

    @router.delete("/v1/scenes/{scene_id:word}", response_model=Deleted, responses=documented())
    async def delete_scene(scene_id: SceneId, tenant: str = Depends(service.tenant)) -> Deleted:
        """Remove a scene; one that is being computed is stopped."""
        await asyncio.to_thread(scenes.delete, tenant, scene_id)
        service.jobs.cancel(tenant, scene_id)
        return Deleted(id=scene_id)


def add_file_endpoints(router: APIRouter, service: Service) -> None:
    """Scenes as files and pages."""
    endings_pattern = f"^({'|'.join(endings())})$"
    kinds_pattern = f"^({'|'.join(kinds())})$"

    @router.get(
        "/v1/scenes/{scene_id:word}.{ending:word}",
        response_class=StreamingResponse,
        responses={200: {"description": "The file.", "content": {"*/*": _BYTES}}, **documented(409, 507)},
    )
    async def get_scene_file(
        scene_id: SceneId,
        ending: Annotated[str, InPath(pattern=endings_pattern)],
        kind: Annotated[
            str | None, Query(pattern=kinds_pattern, description="Format, where an ending has several.")
        ] = None,
        tenant: str = Depends(service.tenant),
    ) -> StreamingResponse:
        """A scene as a file: npz, ply, glb, html, ...; a zip of a COLMAP model, or of another folder."""
        file = await _file(service, tenant, scene_id, file_name(ending, kind))
        headers = {
            "Content-Length": str(file.num_bytes),
            "Content-Disposition": f'attachment; filename="{scene_id}.{ending}"',
        }
        return ClosingStream(file.blocks(), file.close, media_type=file.media_type, headers=headers)

    @router.get("/v1/scenes/{scene_id:word}", response_model=Scene, responses=documented())
    async def get_scene(scene_id: SceneId, tenant: str = Depends(service.tenant)) -> Scene:
        """A scene: how far it is and, once it is done, its cameras and bounds."""
        return _body(service, await asyncio.to_thread(service.store.scenes.get, tenant, scene_id))

    page = {"text/html": {"schema": {"type": "string"}}}

    @router.get(
        "/view/{scene_id}",
        response_class=StreamingResponse,
        responses={200: {"description": "The page.", "content": page}, **documented(409, 507)},
    )
    async def view_scene(scene_id: SceneId, tenant: str = Depends(service.tenant)) -> StreamingResponse:
        """A page that shows a scene; it asks for nothing else."""
        file = await _file(service, tenant, scene_id, file_name("html", None))
        return ClosingStream(
            file.blocks(),
            file.close,
            media_type=file.media_type,
            headers={"Content-Security-Policy": _PAGE_POLICY, "Content-Length": str(file.num_bytes)},
        )


def add_question_endpoints(router: APIRouter, service: Service) -> None:
    """Questions and measurements."""

    @router.post("/v1/scenes/{scene_id}/ask", response_model=SceneAnswer, responses=documented(409, 422))
    async def ask_scene(
        scene_id: SceneId, body: AskRequest, request: Request, tenant: str = Depends(service.tenant)
    ) -> SceneAnswer:
        """Answer a question about a scene, as a chat about its photos would."""
        record = await asyncio.to_thread(service.store.scenes.get, tenant, scene_id)
        if record.state is not JobState.DONE:
            raise ConflictError(f"Expected a finished scene, but it is {body_of(record, 0.0).status}.")
        asking = _asking(service, body)
        lease = await _lease(service, request, record)
        with lease:
            check_question(service.limits, service.model.tokenizer, lease, asking)
            ticket = service.engine.ask(lease.perception, asking, service.terms())
            answer = await result_of(request, ticket)
            return SceneAnswer(
                answer=answer.text,
                finish_reason=answer.reason.value,
                confidence=answer.confidence,
                usage=usage(service, lease, [answer]),
            )

    @router.post("/v1/scenes/{scene_id}/measure", response_model=Measured, responses=documented(409))
    async def measure_scene(
        scene_id: SceneId, body: MeasureRequest, tenant: str = Depends(service.tenant)
    ) -> Measured:
        """Measure in a scene: the depth of a pixel, the distance of two, the size of what a box shows."""
        scene = await asyncio.to_thread(stored_scene, service.store, tenant, scene_id)
        return _measured(scene, body)


def _add_scene(service: Service, tenant: str, body: SceneRequest) -> SceneRecord:
    """Keep what came inside of the request, and note what is wanted."""
    contents = service.looker.reader.contents(tenant, body.inputs)
    uploads = [
        content.upload_id or store_content(service.store, tenant, content.encoded()).id
        for content in contents
    ]
    return service.store.scenes.add(tenant, body.model_dump(exclude={"inputs"}), uploads)


def _body(service: Service, record: SceneRecord) -> Scene:
    return body_of(record, service.jobs.progress(record.tenant, record.id))


def _links() -> dict[str, object]:
    """What the id of a new scene is for."""
    wanted = ("get_scene", "watch_scene", "view_scene", "ask_scene", "measure_scene", "delete_scene")
    return {name: {"operationId": name, "parameters": {"scene_id": "$response.body#/id"}} for name in wanted}


def _stream_responses() -> dict[int | str, dict[str, object]]:
    return {200: {"description": "Events.", "content": EVENTS}, **documented()}


async def _progress(service: Service, request: Request, record: SceneRecord) -> AsyncIterator[bytes]:
    """Tell how far a scene is whenever that changes, until it ends or the client leaves."""
    told: Scene | None = None
    leaving = asyncio.ensure_future(client_leaves(request))
    silent_s = 0.0
    try:
        while not leaving.done() and service.is_ready:
            try:
                record = await asyncio.to_thread(service.store.scenes.get, record.tenant, record.id)
            except NotFoundError as error:
                yield event({"error": str(error)}, "failed")
                return
            body = _body(service, record)
            if body != told:
                told, silent_s = body, 0.0
                is_over = body.status in ("done", "failed")
                yield event(body.model_dump(), body.status if is_over else "progress")
                if is_over:
                    return
            elif silent_s > _STILL_THERE_S:
                silent_s = 0.0
                yield b": still there\n\n"
            silent_s += _TELL_S
            await asyncio.wait({leaving}, timeout=_TELL_S)
    finally:
        leaving.cancel()


async def _file(service: Service, tenant: str, scene_id: str, name: str) -> OpenFile:
    await service.looker.in_thread(make_file, service.store, tenant, scene_id, name)
    return await asyncio.to_thread(OpenFile, service.store, tenant, scene_id, name)


async def _lease(service: Service, request: Request, record: SceneRecord) -> Lease:
    """The use of what a scene's photos were perceived as; they are looked at again if that was dropped."""
    wanted = {name: value for name, value in record.request.items() if name != "questions"}
    looking = Looking.model_validate(wanted)
    try:
        contents = await service.looker.in_thread(
            service.looker.reader.uploaded, record.tenant, record.uploads
        )
    except NotFoundError as error:
        raise ConflictError(
            "Expected the photos of the scene, but they were removed: make the scene anew to ask about it."
        ) from error
    return await service.looker.look_at(request, record.tenant, contents, looking, service.terms())


def _asking(service: Service, body: AskRequest) -> Asking:
    return Asking(
        body.question,
        tuple((turn.question, turn.answer) for turn in body.turns),
        num_passes(service.limits, body.max_tokens),
        Sampling(float(body.temperature), float(body.top_p), body.top_k, body.seed),
    )


def _measured(scene: RealScene, query: MeasureRequest) -> Measured:
    space = PixelSpace(query.space)
    found: Measurement | RegionSize
    if isinstance(query, DepthQuery):
        found = scene.measure_depth(query.view, _pixel(query.pixel), space)
    elif isinstance(query, DistanceQuery):
        found = scene.measure_distance(
            query.view_a, _pixel(query.pixel_a), query.view_b, _pixel(query.pixel_b), space
        )
    else:
        left, top, right, bottom = query.box
        found = scene.measure_size(query.view, (left, top, right, bottom), space)
    values = [found.value] if isinstance(found, Measurement) else [found.width, found.height, found.depth]
    return Measured(values=values, unit=found.scale.unit, confidence=float(found.confidence), text=str(found))


def _pixel(given: list[float]) -> tuple[float, float]:
    u, v = given
    return u, v
