"""Waiting for the engine, as long as the client waits as well."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import Request

from g2vlm.server.engine.work import Ticket
from g2vlm.server.web.errors import ClientLeftError

T = TypeVar("T")


async def client_leaves(request: Request) -> None:
    """Return once the client has gone; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def unless_client_leaves(request: Request, wanted: Awaitable[T], give_up: Callable[[], None]) -> T:
    """Wait for something, or for the client to leave.

    Args:
        request: of the client.
        wanted: what is waited for.
        give_up: called if it is not wanted any more.

    Raises:
        ClientLeftError: the client has left.
    """
    work, leaving = asyncio.ensure_future(wanted), asyncio.ensure_future(client_leaves(request))
    finished = False
    try:
        await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientLeftError
        finished = True
        return work.result()
    finally:
        leaving.cancel()
        if not finished:
            work.cancel()
            give_up()


async def result_of(request: Request, ticket: Ticket[T]) -> T:
    """The result of a ticket; it is cancelled once the client leaves.

    Raises:
        ClientLeftError: the client has left.
    """
    return await unless_client_leaves(request, asyncio.wrap_future(ticket.future), ticket.cancel)
