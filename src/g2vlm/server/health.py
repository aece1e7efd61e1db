"""Whether the service lives, what it does, and which model it has."""

from typing import Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from g2vlm.server.guard.refusals import NotFoundError
from g2vlm.server.service import Service
from g2vlm.server.web.errors import documented, error_response
from g2vlm.server.web.json_body import GuardedRoute
from g2vlm.server.web.metrics import CONTENT_TYPE


class Health(BaseModel):
    """That all is well."""

    status: Literal["ok"] = "ok"


class ServedModel(BaseModel):
    """A model that answers."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When it was loaded, in seconds since 1970.")
    owned_by: str = "g2vlm"


class ModelList(BaseModel):
    """All models that answer."""

    object: Literal["list"] = "list"
    data: list[ServedModel]


def health_router(service: Service) -> APIRouter:
    """`/health`, `/metrics` and `/v1/models`."""
    router = APIRouter(tags=["service"], route_class=GuardedRoute)

    @router.get("/health/live", response_model=Health, responses=documented())
    async def is_alive() -> Health:
        """Whether the process answers; if not, start it anew."""
        return Health()

    @router.get("/health/ready", response_model=Health, responses=documented())
    async def is_ready() -> Health | Response:
        """Whether work is taken."""
        if service.is_ready and service.engine.is_alive:
            return Health()
        return error_response(503, "The service is starting, or going down.", headers={"Retry-After": "5"})

    router.add_api_route(
        "/health", is_ready, response_model=Health, responses=documented(), operation_id="health"
    )

    @router.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {
                "description": "Figures for Prometheus.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            },
            **documented(),
        },
    )
    async def metrics() -> Response:
        """Figures for Prometheus, of all tenants together."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    @router.get("/v1/models", response_model=ModelList, responses=documented())
    async def list_models(tenant: str = Depends(service.tenant)) -> ModelList:
        """The model that answers."""
        return ModelList(data=[_served(service)])

    @router.get("/v1/models/{model}", response_model=ServedModel, responses=documented())
    async def get_model(model: str, tenant: str = Depends(service.tenant)) -> ServedModel:
        """The model that answers, by its name."""
        if model != service.settings.model_name:
            raise NotFoundError(f"Expected the model {service.settings.model_name}, got {model[:100]!r}.")
        return _served(service)

    return router


def _served(service: Service) -> ServedModel:
    return ServedModel(id=service.settings.model_name, created=int(service.started_s))
