"""Requests to a service, and its answers or errors."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from g2vlm.errors import G2VLMError, InputError, MissingExtraError
from g2vlm.scene.writing import atomic_path

if TYPE_CHECKING:
    import httpx

KEY_VARIABLE = "G2VLM_API_KEY"
"""Environment variable of the API key."""
_BLOCK = 1 << 20


class ServiceError(G2VLMError):
    """What a service refused, or could not do."""

    def __init__(self, message: str, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; none where no answer came."""
        self.code = code
        """Short name of the reason."""


class Connection:
    """A service at the other end of HTTP.

    Args:
        url: of the service.
        key: API key; that of the environment variable G2VLM_API_KEY by default.
        timeout_s: longest wait for an answer.
        transport: of httpx, for tests.

    Raises:
        InputError: not such an address.
        MissingExtraError: httpx is not installed.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout_s: int | float = 600.0,
        transport: "httpx.BaseTransport | None" = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError(f"Expected the address of a service, http://... or https://..., got {url!r}.")
        # Only here: the name of the client is there without the extra, such as for `from g2vlm import *`.
        try:
            import httpx
        except ImportError as missing:
            raise MissingExtraError("The client of the HTTP service", "server") from missing
        key = key or os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, transport=transport)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def get(self, path: str) -> Any:
        """The JSON at a path of the service."""
        return self.request("GET", path)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that a path of the service answers to a body."""
        return self.request("POST", path, json=body)

    def delete(self, path: str) -> None:
        """Remove what is at a path of the service."""
        self.request("DELETE", path)

    def fetch(self, path: str, target: Path) -> None:
        """Write what is at a path of the service into a file, completely or not at all."""
        with atomic_path(target) as temporary, _explained(), self._http.stream("GET", path) as response:
            _require_success(response)
            with temporary.open("wb") as file:
                for block in response.iter_bytes(_BLOCK):
                    file.write(block)

    def events(self, method: str, path: str, **options: Any) -> Iterator[tuple[str, Any]]:
        """Names and data of the server-sent events at a path, until the last one."""
        name = ""
        with _explained(), self._http.stream(method, path, **options) as response:
            _require_success(response)
            for line in response.iter_lines():
                kind, _, value = line.partition(": ")
                if kind == "event":
                    name = value
                elif kind == "data" and value != "[DONE]":
                    yield name, json.loads(value)

    def request(self, method: str, path: str, **options: Any) -> Any:
        """The JSON that a request is answered with; options are those of httpx."""
        with _explained():
            response = self._http.request(method, path, **options)
            _require_success(response)
            return response.json()


@contextmanager
def _explained() -> Iterator[None]:
    """Tell troubles of the connection in plain words."""
    import httpx

    try:
        yield
    except httpx.TimeoutException as error:
        raise ServiceError("The service took too long to answer: try again, or allow more time.") from error
    except httpx.HTTPError as error:
        raise ServiceError(f"The service cannot be reached: {error}. Is it running there?") from error


def _require_success(response: "httpx.Response") -> None:
    if response.is_success:
        return
    response.read()
    try:
        told = response.json()["error"]
        message, code = str(told["message"]), told["code"]
    except (ValueError, KeyError, TypeError):
        message, code = f"The service answered {response.status_code} {response.reason_phrase}.", None
    raise ServiceError(message, response.status_code, code)
