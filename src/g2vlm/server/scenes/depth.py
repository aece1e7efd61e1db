"""The endpoint that gives depth of one photo."""

import base64
import json
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from fastapi import APIRouter, Depends, Request, Response

from g2vlm.inputs.photos import PhotoSet
from g2vlm.scene.save_options import SaveOptions, Upsampling
from g2vlm.scene.scene import Scene
from g2vlm.server.engine.looking import plan_look
from g2vlm.server.media.parts import Looking
from g2vlm.server.media.reading import Part
from g2vlm.server.scenes.schemas import DepthMap, DepthRequest
from g2vlm.server.service import Service
from g2vlm.server.web.errors import documented
from g2vlm.server.web.json_body import GuardedRoute
from g2vlm.server.web.waiting import result_of, unless_client_leaves

_HEADERS = {
    "X-Depth-Unit": ("string", "`m`, or `units` up to one unknown factor."),
    "X-Depth-Unit-Per-Count": ("number", "Depth of a pixel is its count times this; count 0 is unknown."),
    "X-Camera-K": ("string", "Intrinsics in pixels as a JSON list of rows."),
}


def depth_router(service: Service) -> APIRouter:
    """`POST /v1/depth`."""
    router = APIRouter(tags=["scenes"], route_class=GuardedRoute)

    @router.post(
        "/v1/depth",
        response_model=DepthMap,
        responses={
            200: {
                "description": "Depth at the size of the photo: a 16-bit PNG, or JSON that holds it.",
                "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
                "headers": {
                    name: {"description": text, "schema": {"type": kind}}
                    for name, (kind, text) in _HEADERS.items()
                },
            },
            **documented(415, 422),
        },
    )
    async def measure_depth(
        body: DepthRequest, request: Request, tenant: str = Depends(service.tenant)
    ) -> Response:
        """Depth of every pixel of a photo, and its camera."""
        left = threading.Event()
        reading = service.looker.in_thread(_read, service, tenant, [body.image], left)
        photos: PhotoSet = await unless_client_leaves(request, reading, left.set)
        plan = plan_look(service.model, photos)
        ticket = service.engine.run(
            lambda: service.model.reconstruct(photos),
            cost=plan.num_tokens,
            terms=service.terms(),
            num_pieces=plan.num_pieces,
        )
        scene = await result_of(request, ticket)
        found, png = await service.looker.in_thread(_depth_of, scene)
        if body.format == "json":
            return Response(found.model_dump_json(), media_type="application/json")
        headers = {
            "X-Depth-Unit": found.unit,
            "X-Depth-Unit-Per-Count": repr(found.unit_per_count),
            "X-Camera-K": json.dumps(found.K),
        }
        return Response(png, media_type="image/png", headers=headers)

    return router


def _read(service: Service, tenant: str, parts: Sequence[Part], left: threading.Event) -> PhotoSet:
    reader = service.looker.reader
    contents = reader.contents(tenant, parts)
    keep = service.model.reduction()
    return reader.photos(contents, Looking(max_views=1, fit="stretch", frame_count=1), keep, left.is_set)


def _depth_of(scene: Scene) -> tuple[DepthMap, bytes]:
    """The files of the depth writer for the only view of a scene."""
    with tempfile.TemporaryDirectory(prefix="g2vlm-depth-") as folder:
        # Guided by the original photo would be sharper at edges, but only what the model needs was kept.
        target = scene.save(f"depth:{folder}/depth", SaveOptions(upsampling=Upsampling.LINEAR))
        facts = json.loads(Path(target, "g2vlm.json").read_text(encoding="utf-8"))
        (view,) = facts["views"]
        png = Path(target, view["file"]).read_bytes()
    width, height = view["size"]
    found = DepthMap(
        width=width,
        height=height,
        K=view["K"],
        unit=scene.scale.unit,
        unit_per_count=facts["unit_per_count"],
        focal_measured=scene.views[0].focal_measured,
        png=base64.b64encode(png).decode(),
    )
    return found, png
