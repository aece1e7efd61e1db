"""The ASGI application of a service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware.cors import CORSMiddleware

import g2vlm
from g2vlm.server.chat.completions import chat_router
from g2vlm.server.health import health_router
from g2vlm.server.media.uploads import uploads_router
from g2vlm.server.scenes.depth import depth_router
from g2vlm.server.scenes.routes import scenes_router
from g2vlm.server.service import Service
from g2vlm.server.web.errors import add_error_handlers
from g2vlm.server.web.gate import REQUEST_ID, Gate

_DESCRIPTION = """From photos or a video to a 3-D scene and to answers about it.

Errors have the shape of OpenAI's: `{"error": {"message", "type", "param", "code"}}`.
"""


def create_app(service: Service) -> FastAPI:
    """All endpoints of a service, which runs as long as the application does."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="g2vlm",
        version=g2vlm.__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    routers = (
        chat_router(service),
        uploads_router(service),
        scenes_router(service),
        depth_router(service),
        health_router(service),
    )
    for router in routers:
        app.include_router(router)
    add_error_handlers(app)
    if service.settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.settings.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=[REQUEST_ID, "Retry-After"],
        )
    app.add_middleware(Gate, settings=service.settings, metrics=service.metrics, keys=service.keys)
    app.openapi = lambda: _description(app, service)  # type: ignore[method-assign]
    return app


def _description(app: FastAPI, service: Service) -> dict[str, Any]:
    """OpenAPI, with the errors as they are and the key where one is needed."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for path in schema["paths"].values():
            for operation in path.values():
                # FastAPI adds its own error of validation, which is answered with 400 here.
                responses = operation["responses"]
                if "HTTPValidationError" in str(responses.get("422")):
                    del responses["422"]
        for name in ("HTTPValidationError", "ValidationError"):
            schema.get("components", {}).get("schemas", {}).pop(name, None)
        model = schema["components"]["schemas"]["ChatRequest"]["properties"]["model"]
        model["enum"] = [service.settings.model_name]
        if service.keys is not None:
            schemes = schema.setdefault("components", {}).setdefault("securitySchemes", {})
            schemes["key"] = {"type": "http", "scheme": "bearer"}
            schema["security"] = [{"key": []}]
            for path, operations in schema["paths"].items():
                if path.startswith(("/health", "/metrics")):
                    for operation in operations.values():
                        operation["security"] = []
        app.openapi_schema = schema
    return app.openapi_schema
