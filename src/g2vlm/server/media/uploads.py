"""The endpoints of uploads."""

import asyncio
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, File, Request, UploadFile
from fastapi import Path as InPath
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile as FormFile

from g2vlm.server.guard.refusals import RefusedError, TooLargeError
from g2vlm.server.guard.sniffing import MediaKind, sniff
from g2vlm.server.media.parts import UPLOAD_ID
from g2vlm.server.service import Service
from g2vlm.server.store.records import UploadRecord
from g2vlm.server.store.store import Store
from g2vlm.server.store.uploads import Arriving
from g2vlm.server.web.errors import documented
from g2vlm.server.web.json_body import GuardedRoute

_BLOCK = 1 << 20
UploadId = Annotated[str, InPath(pattern=UPLOAD_ID, description="As `POST /v1/uploads` gave it.")]


class Upload(BaseModel):
    """A photo or video that was sent."""

    id: str
    object: Literal["upload"] = "upload"
    media_type: str = Field(description="As its content tells, whatever it was called.")
    bytes: int
    sha256: str
    created_at: float = Field(description="Seconds since 1970.")
    expires_at: float = Field(description="When it is removed unless it is used before; seconds since 1970.")


class UploadList(BaseModel):
    """Photos or videos in the order in which they were sent."""

    object: Literal["list"] = "list"
    data: list[Upload]


class Deleted(BaseModel):
    """That something is gone."""

    id: str
    deleted: Literal[True] = True


def uploads_router(service: Service) -> APIRouter:
    """`/v1/uploads`."""
    router = APIRouter(tags=["uploads"], route_class=GuardedRoute)

    links = {
        name: {"operationId": name, "parameters": {"upload_id": "$response.body#/data/0/id"}}
        for name in ("get_upload", "delete_upload")
    }

    @router.post(
        "/v1/uploads",
        status_code=201,
        response_model=UploadList,
        responses={201: {"description": "They are there.", "links": links}, **documented(415, 507)},
    )
    async def create_uploads(
        files: Annotated[list[UploadFile], File(description="Photos, or videos.", max_length=1000)],
        request: Request,
        tenant: str = Depends(service.tenant),
    ) -> UploadList:
        """Send photos or videos once, to name them in any number of requests."""
        if len(files) > service.limits.images_per_request:
            raise RefusedError(
                f"Expected at most {service.limits.images_per_request} files in a request, got {len(files)}."
            )
        records = [await asyncio.to_thread(_take, service.store, tenant, file) for file in files]
        return UploadList(data=[_upload(record) for record in records])

    @router.get("/v1/uploads/{upload_id}", response_model=Upload, responses=documented())
    async def get_upload(upload_id: UploadId, tenant: str = Depends(service.tenant)) -> Upload:
        """What is known about an upload."""
        return _upload(await asyncio.to_thread(service.store.uploads.get, tenant, upload_id))

    @router.delete("/v1/uploads/{upload_id}", response_model=Deleted, responses=documented(409))
    async def delete_upload(upload_id: UploadId, tenant: str = Depends(service.tenant)) -> Deleted:
        """Remove an upload."""
        await asyncio.to_thread(service.store.uploads.delete, tenant, upload_id)
        return Deleted(id=upload_id)

    return router


def _take(store: Store, tenant: str, file: FormFile) -> UploadRecord:
    """Store one file of a form."""
    with store.uploads.receiving(tenant) as arriving:
        while block := file.file.read(_BLOCK):
            arriving.write(block)
        return _finish(store, tenant, arriving)


def store_content(store: Store, tenant: str, content: bytes) -> UploadRecord:
    """Store a photo or video that came inside of a request."""
    with store.uploads.receiving(tenant) as arriving:
        arriving.write(content)
        return _finish(store, tenant, arriving)


def _finish(store: Store, tenant: str, arriving: Arriving) -> UploadRecord:
    arriving.flushed()
    sniffed = sniff(Path(arriving.path))
    limits = store.limits
    if sniffed.kind is MediaKind.IMAGE and arriving.num_bytes > limits.image_bytes:
        raise TooLargeError(
            f"Expected a photo of at most {limits.image_bytes} bytes, got {arriving.num_bytes}: make it "
            "smaller."
        )
    return store.uploads.finish(tenant, arriving, sniffed.media_type)


def _upload(record: UploadRecord) -> Upload:
    return Upload(
        id=record.id,
        media_type=record.media_type,
        bytes=record.num_bytes,
        sha256=record.digest,
        created_at=record.created_s,
        expires_at=record.expires_s,
    )
