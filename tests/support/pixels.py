"""What a screenshot shows."""

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image


def shown(page: Any, shots: Any = None, name: str = "") -> np.ndarray:
    """Pixels of a page; also kept as a file where screenshots are wanted."""
    data = page.screenshot()
    if shots is not None and name:
        (shots / f"{name}.png").write_bytes(data)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def eventually(look: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether something becomes true in time: busy machines draw slowly."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if look():
            return True
        time.sleep(0.2)
    return look()


def lit(pixels: np.ndarray, background: tuple[int, int, int]) -> float:
    """Share of pixels that differ from the background."""
    return float((np.abs(pixels.astype(int) - background).max(axis=-1) > 24).mean())
