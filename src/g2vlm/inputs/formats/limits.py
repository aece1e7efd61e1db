"""Sizes of pictures that are accepted."""

from g2vlm.errors import InputError

MAX_PIXELS = 178_956_970
"""Largest accepted area: Pillow's own limit against decompression bombs (0.5 GB of RGB)."""

MAX_ASPECT_RATIO = 20.0
"""Longest accepted side over the shorter one: beyond it a view would be less than two patches thin."""


def lower_limit(max_pixels: int) -> None:
    """Accept only smaller pictures in this process from now on, as a service that anybody may ask does.

    Args:
        max_pixels: Largest accepted area, at most `MAX_PIXELS`.
    """
    global MAX_PIXELS
    MAX_PIXELS = min(MAX_PIXELS, max_pixels)


def check_size(width: int, height: int) -> None:
    """Refuse impossible sizes before their pixels are decoded.

    Args:
        width: In pixels.
        height: In pixels.

    Raises:
        InputError: No pixels, more than `MAX_PIXELS`, or sides beyond `MAX_ASPECT_RATIO`; the message is the
            reason.
    """
    if width < 1 or height < 1:
        raise InputError(f"no pixels: {width}x{height}")
    if width * height > MAX_PIXELS:
        raise InputError(
            f"too large: {width}x{height}, at most {MAX_PIXELS // 1_000_000} megapixels are read"
        )
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise InputError(
            f"too elongated: {width}x{height}, one side may be at most {MAX_ASPECT_RATIO:g} x the other"
        )
