"""Depth of one camera as another camera beside it sees it."""

import numpy as np
from jaxtyping import Float


def carried_depth(
    depth: Float[np.ndarray, "height width"],
    K_source: Float[np.ndarray, "3 3"],
    T_target_source: Float[np.ndarray, "4 4"],
    K_target: Float[np.ndarray, "3 3"],
) -> Float[np.ndarray, "height width"]:
    """The depth map of another camera of the same picture size, from the points of this one.

    Every known pixel is unprojected, moved and projected to the nearest pixel; of several points the nearest
    is kept. Pixels that no point falls into are filled where at least five of their eight neighbours are
    known and agree within 5 %, with their median: gaps of the sampling close, real holes stay.

    Args:
        depth: z-depth, 0 where it is not known.
        K_source: intrinsics of the depth map.
        T_target_source: takes points of the depth camera to the other camera.
        K_target: intrinsics of the other camera.
    """
    height, width = depth.shape
    v, u = np.nonzero(depth > 0)
    z = depth[v, u].astype(np.float64)
    rays = np.linalg.solve(K_source, np.stack([u, v, np.ones_like(u)]).astype(np.float64))
    x, y, z = T_target_source[:3, :3] @ (rays * z) + T_target_source[:3, 3:]
    front = z > 1e-6
    column = np.round(K_target[0, 0] * x[front] / z[front] + K_target[0, 2]).astype(int)
    row = np.round(K_target[1, 1] * y[front] / z[front] + K_target[1, 2]).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    nearest = np.full((height, width), np.inf)
    np.minimum.at(nearest, (row[inside], column[inside]), z[front][inside])
    return _filled(np.where(np.isfinite(nearest), nearest, 0.0))


def _filled(depth: np.ndarray) -> np.ndarray:
    padded = np.pad(depth, 1)
    height, width = depth.shape
    around = np.stack(
        [padded[1 + dv : 1 + dv + height, 1 + du : 1 + du + width] for dv in (-1, 0, 1) for du in (-1, 0, 1)]
    )
    known = around > 0
    count = known.sum(axis=0)
    around = np.where(known, around, np.nan)
    wanted = (depth == 0) & (count >= 5)
    values = np.sort(around[:, wanted], axis=0)
    result = depth.copy()
    if values.size:
        number = count[wanted]
        middle = np.take_along_axis(values, ((number - 1) // 2)[None], axis=0)[0]
        last = np.take_along_axis(values, (number - 1)[None], axis=0)[0]
        result[wanted] = np.where(last - values[0] < 0.05 * middle, middle, 0.0)
    return result
