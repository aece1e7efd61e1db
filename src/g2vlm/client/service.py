"""A typed client of the service; needs neither torch nor a model.

client = g2vlm.Client("http://127.0.0.1:8000")
scene = client.reconstruct("photos/room")
scene.save("room.glb")
print(scene.ask("How far is the chair from me?").text)
"""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from g2vlm.client.connection import Connection, ServiceError
from g2vlm.client.files import Photos, files_of
from g2vlm.client.scenes import Progress, RemoteAnswer, RemoteScene

if TYPE_CHECKING:
    import httpx

_FILES_AT_ONCE = 16
"""Photos in one request of an upload."""


@dataclass(frozen=True)
class RemoteDepth:
    """Depth of every pixel of a photo."""

    depth: np.ndarray
    """(height, width) float32, NaN where unknown."""
    K: np.ndarray
    """(3, 3) intrinsics in pixels, centres at integers."""
    unit: str
    """"m", or "units" up to one unknown factor."""


class Client:
    """A service, from this side.

    Args:
        url: of the service.
        key: API key; that of the environment variable G2VLM_API_KEY by default.
        timeout_s: longest wait for an answer.
        transport: of httpx, for tests.

    Raises:
        InputError: not such an address.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout_s: int | float = 600.0,
        transport: "httpx.BaseTransport | None" = None,
    ) -> None:
        self._service = Connection(url, key=key, timeout_s=timeout_s, transport=transport)
        self._model: str | None = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._service.close()

    @property
    def model(self) -> str:
        """Name of the model that answers."""
        if self._model is None:
            self._model = str(self._service.get("/v1/models")["data"][0]["id"])
        return self._model

    def upload(self, photos: Photos) -> tuple[str, ...]:
        """Send photos, or a video.

        Returns:
            Ids of the uploads, in order.

        Raises:
            InputError: nothing is there.
            ServiceError: the service refuses.
        """
        paths, ids = files_of(photos), list[str]()
        for start in range(0, len(paths), _FILES_AT_ONCE):
            some = paths[start : start + _FILES_AT_ONCE]
            files = [("files", (path.name, path.read_bytes())) for path in some]
            ids += [one["id"] for one in self._service.request("POST", "/v1/uploads", files=files)["data"]]
        return tuple(ids)

    def ask(
        self,
        question: str,
        photos: Photos,
        *,
        turns: Sequence[tuple[str, str]] = (),
        on_text: Callable[[str], None] | None = None,
        **options: Any,
    ) -> RemoteAnswer:
        """Answer a question about photos or a video.

        Args:
            question: in natural language.
            photos: that it is about.
            turns: questions and answers before it.
            on_text: receives the answer piece by piece.
            options: further parameters of chat completions: max_tokens, temperature, seed, max_views, ...

        Raises:
            ServiceError: the service refuses.
        """
        return self.ask_uploads(question, self.upload(photos), turns=turns, on_text=on_text, **options)

    def ask_uploads(
        self,
        question: str,
        uploads: Sequence[str],
        *,
        turns: Sequence[tuple[str, str]] = (),
        on_text: Callable[[str], None] | None = None,
        **options: Any,
    ) -> RemoteAnswer:
        """As `ask`, about what was uploaded before."""
        asked = [*(said for turn in turns for said in turn), question]
        messages: list[dict[str, Any]] = [
            {"role": "assistant" if number % 2 else "user", "content": said}
            for number, said in enumerate(asked)
        ]
        parts = [{"type": "file", "file": {"file_id": one}} for one in uploads]
        messages[0]["content"] = [*parts, {"type": "text", "text": asked[0]}]
        body = {"model": self.model, "messages": messages, **options}
        if on_text is not None:
            return self._streamed(body, on_text)
        answer = self._service.request("POST", "/v1/chat/completions", json=body)
        (choice, *_), usage = answer["choices"], answer["usage"]
        return RemoteAnswer(
            choice["message"]["content"],
            choice["finish_reason"],
            usage["prompt_tokens"],
            usage["completion_tokens"],
        )

    def _streamed(self, body: dict[str, Any], on_text: Callable[[str], None]) -> RemoteAnswer:
        text, reason, usage = "", "stop", {"prompt_tokens": 0, "completion_tokens": 0}
        wanted = {**body, "stream": True, "stream_options": {"include_usage": True}}
        for _, data in self._service.events("POST", "/v1/chat/completions", json=wanted):
            if "error" in data:
                raise ServiceError(data["error"]["message"], code=data["error"]["code"])
            usage = data.get("usage") or usage
            for choice in data["choices"]:
                piece = choice["delta"].get("content") or ""
                text, reason = text + piece, choice["finish_reason"] or reason
                if piece:
                    on_text(piece)
        return RemoteAnswer(text, reason, usage["prompt_tokens"], usage["completion_tokens"])

    def reconstruct(
        self, photos: Photos, *, on_progress: Progress | None = None, **options: Any
    ) -> RemoteScene:
        """Reconstruct photos or a video, and wait for the scene.

        Args:
            photos: that show one place.
            on_progress: told how far it is.
            options: `questions`, `max_views`, `fit`, `frame_count`.

        Raises:
            ServiceError: the service refuses, or the scene cannot be computed.
        """
        scene = self.begin_scene(self.upload(photos), **options)
        scene.wait(on_progress)
        return scene

    def begin_scene(self, uploads: Sequence[str], **options: Any) -> RemoteScene:
        """Ask for a scene of what was uploaded before, and do not wait for it; options as of `reconstruct`.

        Raises:
            ServiceError: the service refuses.
        """
        inputs = [{"type": "file", "file": {"file_id": one}} for one in uploads]
        made = self._service.request("POST", "/v1/scenes", json={"inputs": inputs, **options})
        return self.scene(made["id"])

    def scene(self, scene_id: str) -> RemoteScene:
        """A scene by its id."""
        return RemoteScene(self._service, scene_id)

    def scenes(self) -> tuple[RemoteScene, ...]:
        """Scenes of this key, newest first, at most 1000."""
        return tuple(self.scene(one["id"]) for one in self._service.get("/v1/scenes?limit=1000")["data"])

    def depth(self, photo: str | Path) -> RemoteDepth:
        """Depth of a photo.

        Raises:
            ServiceError: the service refuses.
        """
        from PIL import Image

        (upload,) = self.upload([photo])
        image = {"type": "file", "file": {"file_id": upload}}
        found = self._service.request("POST", "/v1/depth", json={"image": image, "format": "json"})
        counts = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["png"]))))
        depth = np.where(counts > 0, counts * np.float32(found["unit_per_count"]), np.nan)
        return RemoteDepth(depth.astype(np.float32), np.array(found["K"]), found["unit"])
