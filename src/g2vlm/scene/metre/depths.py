"""The metre from measured depth, dense or sparse, with holes: LiDAR, depth cameras, other networks."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from g2vlm.errors import InputError
from g2vlm.geometry.known import DepthMaps, KnownDepth
from g2vlm.scene.metre.matching import match_views
from g2vlm.scene.metre.report import Finding, percent
from g2vlm.scene.view import View

if TYPE_CHECKING:
    from g2vlm.scene.scene import Scene

FEWEST_PIXELS = 8
"""Fewer valid pixels of a view than this tell nothing."""
_MOST_PIXELS = 20_000
_ASPECT_TOLERANCE = 0.02


class DepthUse(StrEnum):
    """How measured depth changes a scene."""

    SCENE = "scene"
    """One factor for the whole scene: its shape stays."""
    VIEW = "view"
    """Besides, each view's points take a factor of their own, about its camera: views that disagree with the
    measured depth by different factors meet it, cameras stay where the common factor puts them."""


@dataclass(frozen=True, eq=False)
class DepthFit:
    """Factors that bring the depth of a scene to the measured one."""

    finding: Finding
    view_factors: tuple[float | None, ...]
    """Of each view by itself; None where it has too few measured pixels."""


def find_depths(scene: "Scene", known: DepthMaps, use: DepthUse) -> DepthFit:
    """What measured depth says about the unit of a scene.

    Each measured pixel is compared with the nearest pixel of the point map. The factor of the scene is the
    one that the majority of all pixels agrees on, every view with the same total weight.

    Raises:
        InputError: no map matches a view, maps of another shape than the photos, or too few valid pixels.
    """
    import torch

    from g2vlm.geometry.consensus import consensus_scale

    match = match_views(
        scene.views, [each.name for each in known.maps], [None] * len(known.maps), "depth maps"
    )
    common = {index: _common_pixels(scene.views[index], known.maps[place]) for index, place in match.pairs}
    used = [index for index, (predicted, _) in common.items() if len(predicted) >= FEWEST_PIXELS]
    if not used:
        raise InputError(
            f"Expected at least {FEWEST_PIXELS} pixels with both a measured depth and a valid point in some "
            f"view, got none in {known.source}: check the depth scale, that holes are 0, and that files are "
            "named like the photos."
        )
    factors: list[float | None] = [None] * len(scene)
    for index in used:
        factors[index] = consensus_scale(*map(torch.from_numpy, common[index])).factor
    ours = [common[index][0] for index in used]
    weights = [np.full(len(pixels), 1 / len(pixels)) for pixels in ours]
    predicted, measured = (np.concatenate([common[index][side] for index in used]) for side in (0, 1))
    whole = consensus_scale(*(torch.from_numpy(x) for x in (predicted, measured, np.concatenate(weights))))
    fitted = _factors_of(used, ours, factors, whole.factor, use) * predicted
    residuals = np.abs(measured - fitted)
    point_error = float(1.4826 * np.median(np.abs(np.log(measured / fitted))))
    error, spread = _between_views([factors[index] / whole.factor for index in used])  # type: ignore[operator]
    notes = [
        match.note(len(scene)),
        f"{len(used)} views with enough measured pixels",
        f"single pixels differ from it by {percent(point_error)}",
        *spread,
    ]
    finding = Finding(
        source=f"depth of {known.source}",
        fit="scale" if use is DepthUse.SCENE else "scale of each view",
        factor=whole.factor,
        residual=float(np.median(residuals)),
        unit="m",
        num_inliers=int(whole.inliers.sum()),
        num_given=len(predicted),
        relative_error=error,
        point_error=point_error,
        notes=tuple(notes),
    )
    return DepthFit(finding, tuple(factors))


def _between_views(ratios: list[float]) -> tuple[float | None, list[str]]:
    """Standard error of a factor by how much those of the views differ from it, and a note on that."""
    if len(ratios) < 2:
        return None, []
    # Pixels of one view err together, so views are what is counted.
    logs = np.log(ratios)
    error = float(np.std(logs, ddof=1) / np.sqrt(len(ratios)))
    return error, [f"factors of the views differ by {percent(np.exp(np.ptp(logs)) - 1)}"]


def _factors_of(
    used: list[int], ours: list[np.ndarray], factors: list[float | None], common: float, use: DepthUse
) -> np.ndarray:
    """The factor of every pixel."""
    chosen = [common if use is DepthUse.SCENE else factors[index] or common for index in used]
    return np.repeat(chosen, [len(pixels) for pixels in ours])


def _common_pixels(
    view: View, known: KnownDepth
) -> tuple[Float64[np.ndarray, " pixels"], Float64[np.ndarray, " pixels"]]:
    """Depths of the view and measured ones, where there are both."""
    depth = known.load()
    height, width = depth.shape
    full_width, full_height = view.original_size
    if abs(np.log(width * full_height / (height * full_width))) > _ASPECT_TOLERANCE:
        raise InputError(
            f"Expected depth of the shape of its photo, {full_width}x{full_height}, but {known.name} has "
            f"{width}x{height}: it must cover the whole photo, at any resolution."
        )
    rows, columns = np.nonzero(np.isfinite(depth) & (depth > 0))
    if len(rows) > _MOST_PIXELS:
        keep = np.linspace(0, len(rows) - 1, _MOST_PIXELS).round().astype(int)
        rows, columns = rows[keep], columns[keep]
    # Borders of the two images coincide, so centres move by half pixels.
    u = (columns + 0.5) * full_width / width - 0.5
    v = (rows + 0.5) * full_height / height - 0.5
    model = view.T_model_original[:2, :2] @ np.stack([u, v]) + view.T_model_original[:2, 2:]
    column, row = np.rint(model).astype(int)
    inside = (column >= 0) & (column < view.width) & (row >= 0) & (row < view.height)
    row, column, measured = row[inside], column[inside], depth[rows, columns][inside]
    valid = view.valid[row, column] & (view.depth[row, column] > 0)
    return view.depth[row, column][valid].astype(np.float64), measured[valid].astype(np.float64)


def scale_views(scene: "Scene", fit: DepthFit) -> "Scene":
    """Give each view's points its own factor relative to the common one, about its camera."""
    common = fit.finding.factor
    assert common is not None
    views = tuple(
        view
        if factor is None
        else replace(view, points_camera=view.points_camera * np.float32(factor / common))
        for view, factor in zip(scene.views, fit.view_factors, strict=True)
    )
    return replace(scene, views=views)
