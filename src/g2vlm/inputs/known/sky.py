"""Which pixels show sky, by a rule that can be read: colour, smoothness, and touching the upper border.

A pixel may be sky if

- it is bright (its largest channel at least 90 of 255), and blue (blue at least as large as red and green,
  blue above red by 16 or more) or pale (channels within 28 of each other, the largest at least 190);
- it is smooth: its brightness changes by less than 6 levels to its neighbours, which leaves out foliage,
  bricks, text.

Of these pixels those count that are connected to the upper border of the picture, in pieces that cover at
least a hundredth of it, and reach the border over at least an eighth of its width. Small holes are filled. A
pale ceiling would pass all of this: so a picture counts as taken outdoors only if some of its sky is blue, or
if its pale sky is nearly white (all channels 235 or more) over half of its area. A white ceiling that is as
bright as that, or a blue one, is mistaken for sky; a sunset is not recognised.
"""

import numpy as np
from jaxtyping import Bool, UInt8

_BRIGHT, _PALE_BRIGHT = 90, 190
_BLUE_OVER_RED = 16
_PALE_RANGE = 28
_SMOOTH = 6
_WHITE = 235
_MIN_AREA = 0.01
_MIN_BORDER = 1 / 8
_MIN_BLUE = 0.3


def sky_mask(rgb: UInt8[np.ndarray, "height width 3"]) -> Bool[np.ndarray, "height width"]:
    """True where a picture shows sky, by the rule above; at 200 to 1000 pixels width."""
    import cv2

    height, width = rgb.shape[:2]
    smoothed = cv2.GaussianBlur(rgb, (3, 3), 0).astype(np.int16)
    red, green, blue = np.moveaxis(smoothed, -1, 0)
    largest, smallest = smoothed.max(axis=-1), smoothed.min(axis=-1)

    # Colour.
    is_blue = (largest >= _BRIGHT) & (blue >= green) & (blue >= red + _BLUE_OVER_RED)
    is_pale = (largest >= _PALE_BRIGHT) & (largest - smallest <= _PALE_RANGE)

    # Smoothness: the steps to the right and downwards.
    level = smoothed.mean(axis=-1)
    step = np.maximum(
        np.abs(np.diff(level, axis=1, append=level[:, -1:])),
        np.abs(np.diff(level, axis=0, append=level[-1:])),
    )
    candidate = (is_blue | is_pale) & (step < _SMOOTH)

    # Position: pieces that hang from the upper border.
    sky = np.zeros((height, width), dtype=bool)
    count, pieces = cv2.connectedComponents(candidate.astype(np.uint8), connectivity=4)
    for piece in range(1, count):
        area = pieces == piece
        if area.mean() >= _MIN_AREA and area[0].mean() >= _MIN_BORDER:
            sky |= area
    if not sky.any() or not _is_outdoors(sky, is_blue, smallest):
        return np.zeros((height, width), dtype=bool)
    closed = cv2.morphologyEx(sky.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    # Closing may not reach what has another colour altogether.
    return (closed > 0) & (sky | is_blue | is_pale)


def _is_outdoors(sky: np.ndarray, is_blue: np.ndarray, smallest: np.ndarray) -> bool:
    return bool(is_blue[sky].mean() >= _MIN_BLUE or (smallest[sky] >= _WHITE).mean() >= 0.5)
