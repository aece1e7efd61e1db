"""The metre from lengths that somebody has measured: between pixels, or between cameras."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from g2vlm.errors import InputError
from g2vlm.scene.metre.report import Finding
from g2vlm.scene.view import Pixel, PixelSpace

if TYPE_CHECKING:
    from g2vlm.scene.scene import Scene

_SAME_PLACE = 1e-6


@dataclass(frozen=True)
class KnownDistance:
    """The straight distance between two pixels' points in space."""

    view_a: int
    """Index of a view, from 0."""
    pixel_a: Pixel
    """(u, v) in its photo."""
    view_b: int
    """Index of a view; may be the same."""
    pixel_b: Pixel
    """(u, v) in its photo."""
    metres: int | float
    """The true distance."""
    space: PixelSpace = PixelSpace.ORIGINAL
    """Which images the pixels count in."""

    def __post_init__(self) -> None:
        """Check the length."""
        _require_length(self.metres, "known distance")


@dataclass(frozen=True)
class KnownBaseline:
    """The distance between two cameras."""

    view_a: int
    """Index of a view, from 0."""
    view_b: int
    """Index of another."""
    metres: int | float
    """The true distance."""

    def __post_init__(self) -> None:
        """Check the length and the views."""
        _require_length(self.metres, "known baseline")
        if self.view_a == self.view_b:
            raise InputError(f"Expected a known baseline between two views, got view {self.view_a} twice.")


def _require_length(metres: int | float, what: str) -> None:
    if not (np.isfinite(metres) and metres > 0):
        raise InputError(f"Expected a {what} above 0 metres, got {metres:g}.")


def find_distances(scene: "Scene", known: Sequence[KnownDistance]) -> Finding:
    """What known distances say about the unit of a scene.

    Raises:
        InputError: a pixel without a valid point, or two ends in the same place.
    """
    measured, errors = [], []
    for each in known:
        found = scene.measure_distance(each.view_a, each.pixel_a, each.view_b, each.pixel_b, each.space)
        if not found.value > _SAME_PLACE * _extent(scene):
            raise InputError(
                f"Expected a known distance between two places, but pixel {each.pixel_a} of view "
                f"{each.view_a} "
                f"and {each.pixel_b} of view {each.view_b} show the same one: choose pixels further apart."
            )
        measured.append(found.value)
        if found.uncertainty is not None:
            errors.append(found.uncertainty / found.value)
    name = "known distance between two pixels" if len(known) == 1 else f"{len(known)} known distances"
    return _finding(name, np.array(measured), np.array([each.metres for each in known], float), errors)


def find_baselines(scene: "Scene", known: Sequence[KnownBaseline]) -> Finding:
    """What known distances between cameras say about the unit of a scene.

    Raises:
        InputError: no such view, or cameras that stand in one place.
    """
    measured = []
    for each in known:
        a, b = (scene.view_at(i).T_world_camera[:3, 3].astype(np.float64) for i in (each.view_a, each.view_b))
        length = float(np.linalg.norm(a - b))
        if not length > _SAME_PLACE * _extent(scene):
            raise InputError(
                f"Expected a known baseline between cameras that moved, but views {each.view_a} and "
                f"{each.view_b} stand in one place in this scene: choose two that are further apart, or give "
                "a known distance between pixels."
            )
        measured.append(length)
    name = "known distance between two cameras" if len(known) == 1 else f"{len(known)} known baselines"
    return _finding(name, np.array(measured), np.array([each.metres for each in known], float), [])


def _finding(name: str, measured: np.ndarray, metres: np.ndarray, errors: list[float]) -> Finding:
    import torch

    from g2vlm.geometry.consensus import consensus_scale

    fit = consensus_scale(torch.from_numpy(measured), torch.from_numpy(metres))
    residuals = metres - fit.factor * measured
    count = int(fit.inliers.sum())
    # Several lengths tell by their differences how good each is; a single one by its own uncertainty.
    spread = float(np.std(np.log(metres / measured)[fit.inliers.numpy()], ddof=1)) if count > 1 else None
    own = float(np.sqrt(np.mean(np.square(errors)))) if errors else None
    error = own if spread is None else max(spread, own or 0.0) / np.sqrt(count)
    notes = tuple(
        f"number {i + 1} is {measured[i] * fit.factor:.4g} m here, not {metres[i]:.4g} m, and was left out"
        for i in np.flatnonzero(~fit.inliers.numpy())
    )
    return Finding(
        source=name,
        fit="scale",
        factor=fit.factor,
        residual=float(np.median(np.abs(residuals))) if len(metres) > 1 else None,
        unit="m",
        num_inliers=count,
        num_given=len(metres),
        relative_error=None if error is None else float(error),
        notes=notes,
        residuals=tuple(float(x) for x in residuals[:1000]),
    )


def _extent(scene: "Scene") -> float:
    """A length to judge others by: the median depth of the first view that has points, else the unit."""
    for view in scene.views:
        if view.valid.any():
            return float(np.median(view.depth[view.valid]))
    return 1.0
