"""A service on a socket: listening, telling where, and ending in order."""

import asyncio
import contextlib
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from g2vlm.errors import InputError
from g2vlm.export.originals import MissingOriginalWarning
from g2vlm.inputs.notices import InputWarning
from g2vlm.pipeline import Model
from g2vlm.server.app import create_app
from g2vlm.server.guard.decoding import DecodingPool
from g2vlm.server.guard.fetching import Fetcher
from g2vlm.server.service import Service
from g2vlm.server.settings import Settings
from g2vlm.server.web.tracing import trace_requests

_KEEP_ALIVE_S = 30
_AFTER_GRACE_S = 5
"""Beside the time for work: until connections are closed whose clients do not read."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: address or name.
        port: 0 takes a free one.

    Raises:
        InputError: the address is not this machine's, or taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, socket.SOCK_STREAM)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            found.listen(2048)
        except BaseException:
            found.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"Cannot listen on {host}, port {port}: {reason}. Choose another port.") from error
    return found


def address_of(listening: socket.socket) -> str:
    """Where clients on this machine find it."""
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def make_service(model: Model, settings: Settings) -> Service:
    """A service with processes that decode.

    Raises:
        InputError: the key file or the data folder cannot be used.
    """
    # Clients are told what is wrong with their photos by the answers, not by warnings of this process.
    warnings.simplefilter("ignore", InputWarning)
    warnings.simplefilter("ignore", MissingOriginalWarning)
    fetch = Fetcher(settings.limits).fetch if settings.fetch_urls else None
    pool = DecodingPool(settings.limits)
    try:
        return Service(model, settings, pool, fetch)
    except BaseException:
        pool.close()
        raise


class _Server(uvicorn.Server):
    """Stops taking work as soon as it is told to end, not only once all connections have closed."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.begin_to_stop()
        await super().shutdown(sockets)


def serve(service: Service, listening: socket.socket, on_start: Callable[[], None]) -> None:
    """Serve until the process is told to end, then finish what soon ends.

    Args:
        service: is served.
        listening: its socket.
        on_start: called once it answers.
    """
    server = _server(service)
    with _calm_signals():
        asyncio.run(_serve(server, listening, on_start))


@contextmanager
def serving_in_thread(service: Service) -> Iterator[str]:
    """Serve from a thread of this process while the block runs, for tests and measurements.

    Yields:
        The address.
    """
    listening, started = listen("127.0.0.1", 0), threading.Event()
    server = _server(service)
    thread = threading.Thread(
        target=lambda: asyncio.run(_serve(server, listening, started.set)), name="g2vlm-http"
    )
    thread.start()
    try:
        while not started.wait(0.1):
            if not thread.is_alive():
                raise RuntimeError("The service did not start.")
        yield address_of(listening)
    finally:
        server.should_exit = True
        thread.join()


def _server(service: Service) -> _Server:
    app = create_app(service)
    trace_requests(app)
    config = uvicorn.Config(
        app,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(service.settings.grace_s) + _AFTER_GRACE_S,
        h11_max_incomplete_event_size=2 * service.limits.header_bytes,
    )
    return _Server(config, service)


async def _serve(server: _Server, listening: socket.socket, on_start: Callable[[], None]) -> None:
    serving = asyncio.create_task(server.serve([listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        on_start()
    await serving


@contextmanager
def _calm_signals() -> Iterator[None]:
    """Let an order to end be an end in order: uvicorn raises the signals anew once it is done."""

    def heed(_number: int, _frame: FrameType | None) -> None:
        pass

    before = {number: signal.signal(number, heed) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            with contextlib.suppress(TypeError):  # a handler that Python did not set
                signal.signal(number, handler)
