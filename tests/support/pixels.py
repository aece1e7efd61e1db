"""What a screenshot shows."""

import io
from typing import Any

import numpy as np
from PIL import Image


def shown(page: Any, shots: Any = None, name: str = "") -> np.ndarray:
    """Pixels of a page; also kept as a file where screenshots are wanted."""
    data = page.screenshot()
    if shots is not None and name:
        (shots / f"{name}.png").write_bytes(data)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def lit(pixels: np.ndarray, background: tuple[int, int, int]) -> float:
    """Share of pixels that differ from the background."""
    return float((np.abs(pixels.astype(int) - background).max(axis=-1) > 24).mean())
