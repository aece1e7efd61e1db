"""JSON of requests, read with care."""

import json
from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

MOST_DEPTH = 32
"""Nesting of lists and objects where the application names no other limit."""


class _GuardedRequest(Request):
    async def json(self) -> Any:
        """The body; see `parsed`."""
        return parsed(await self.body(), getattr(self.app.state, "json_depth", MOST_DEPTH))


class GuardedRoute(APIRoute):
    """A route that reads JSON with care."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """The handler, with a careful request."""
        handle = super().get_route_handler()

        async def careful(request: Request) -> Any:
            return await handle(_GuardedRequest(request.scope, request.receive))

        return careful


def parsed(body: bytes, most_depth: int) -> Any:
    """Read JSON; deeper nesting, numbers that JSON lacks and lonely surrogates are refused.

    Raises:
        HTTPException: it is refused.
        json.JSONDecodeError: it is no JSON.
    """
    try:
        content = json.loads(body, parse_constant=_refuse)
        text_check(content, most_depth)
    except RecursionError as error:
        raise HTTPException(400, "Expected JSON that is nested less deeply.") from error
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise HTTPException(400, f"Expected JSON in UTF-8, got something else: {error}.") from error
    return content


def text_check(content: Any, most_depth: int) -> None:
    """Refuse JSON that is nested too deeply, or holds half characters.

    Raises:
        ValueError: it does.
    """
    level, depth = [content], 0
    while level:
        if depth > most_depth:
            raise ValueError(f"more than {most_depth} levels of lists and objects")
        below: list[Any] = []
        for value in level:
            if isinstance(value, str):
                # Surrogates come from escapes only, and no answer could be encoded that repeats them.
                value.encode()
            elif isinstance(value, dict):
                below += value.keys()
                below += value.values()
            elif isinstance(value, list):
                below += value
        level, depth = below, depth + 1


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")
