"""A very small random model for tests of the service, and pictures for it."""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
from PIL import Image

import g2vlm
from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.inputs.decode import decode_bytes
from g2vlm.inputs.frame_choice import FrameChoice
from g2vlm.inputs.photos import PhotoSet, load_photos
from g2vlm.inputs.reduction import Reduction
from g2vlm.server.service import Service
from g2vlm.server.settings import Settings


def small_model(folder: Path) -> g2vlm.Model:
    """A random network of very small size, in float32, with all its parts."""
    model = g2vlm.load(random_checkpoint(folder), device="cpu", dtype="float32", compiled=False)
    model.load_parts(model.config.parts)
    return model


def pictures(count: int, seed: int = 0, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Noise, (height, width, 3)."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def photos(model: g2vlm.Model, count: int, seed: int = 0) -> PhotoSet:
    """Noise as the service reads it."""
    return load_photos(pictures(count, seed), keep=model.reduction(asking=True))


def wait_until(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something that another thread does."""
    end = monotonic() + seconds
    while not happened():
        assert monotonic() < end, "it did not happen"
        sleep(0.002)


class PlainDecoder:
    """Decodes photos in this process, for tests that are not about decoding."""

    def __init__(self) -> None:
        self.num_calls = 0

    def decode(
        self,
        sources: Sequence[bytes | Path],
        *,
        keep: Reduction | None,
        frames: FrameChoice = FrameChoice(),
        max_views: int | None = None,
        is_cancelled: Callable[[], bool] = bool,
    ) -> PhotoSet:
        """As `DecodingPool.decode`."""
        self.num_calls += 1
        contents = [one if isinstance(one, bytes) else one.read_bytes() for one in sources]
        return load_photos([decode_bytes(one) for one in contents], max_views=max_views, keep=keep)

    def close(self) -> None:
        """Nothing runs."""


def png(pixels: np.ndarray) -> bytes:
    """An encoded picture."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def data_url(pixels: np.ndarray) -> str:
    """A picture as requests hold it."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def image_part(pixels: np.ndarray) -> dict[str, Any]:
    """A picture as a part of a message."""
    return {"type": "image_url", "image_url": {"url": data_url(pixels)}}


def chat_body(question: str = "Why?", count: int = 1, noise: int = 0, **options: Any) -> dict[str, Any]:
    """A request for a short answer about noise."""
    parts = [image_part(picture) for picture in pictures(count, noise)]
    content = [*parts, {"type": "text", "text": question}]
    return {"model": "small", "messages": [{"role": "user", "content": content}], "max_tokens": 6, **options}


def small_service(model: g2vlm.Model, **options: Any) -> Service:
    """A service with default settings that decodes in this process."""
    return Service(model, Settings("small", grace_s=2, **options), PlainDecoder(), None)
