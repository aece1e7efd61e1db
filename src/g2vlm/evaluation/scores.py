"""The errors of the geometry of one scene, as they are written down."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DepthScores:
    """Errors of depth after one kind of alignment."""

    abs_rel: float
    delta: float
    """Share of pixels within a factor of 1.25."""


@dataclass(frozen=True)
class GeometryScores:
    """Errors of the geometry of one scene; lengths in the unit of the truth.

    None, or empty, is what the method does not say or the truth does not know.
    """

    num_views: int
    abs_rel: float | None = None
    """Depth, one scale for the scene (ratio of medians)."""
    delta: float | None = None
    """Depth, one scale for the scene: share of pixels within a factor of 1.25."""
    rmse: float | None = None
    """Depth, one scale for the scene."""
    abs_rel_per_view: float | None = None
    """Depth, one scale for each view (ratio of medians)."""
    rotation_deg: tuple[float, ...] = ()
    """Relative rotations, one error for each pair of views; 180 for pairs that were not found."""
    translation_deg: tuple[float, ...] = ()
    """Directions of relative translations, 0 to 180 (signed), one for each pair; 180 where not found."""
    ate: float | None = None
    """Absolute trajectory error after Sim(3); None with fewer than three views, or a camera not found."""
    rpe_translation: float | None = None
    rpe_rotation_deg: float | None = None
    pointwise: float | None = None
    """Mean distance between the predicted and the true point of the same pixel, after Sim(3)."""
    accuracy: float | None = None
    """Mean distance from predicted to the nearest true points after Sim(3) and ICP. A collapsed prediction
    can lie on a surface and score well: read it together with completeness."""
    completeness: float | None = None
    """Mean distance from true to the nearest predicted points after Sim(3) and ICP."""
    normal_consistency: float | None = None
    focal: float | None = None
    """Relative error of the focal length recovered from the points, mean of the views."""
    diagonal: float | None = None
    """Size of the scene."""
    focal_per_view: tuple[float, ...] = ()
    """Relative error of the focal length of each view."""
    accuracy_median: float | None = None
    completeness_median: float | None = None
    aligned: dict[str, DepthScores] = field(default_factory=dict, hash=False)
    """Depth after other alignments, by the name of `DepthAlignment`."""

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "GeometryScores":
        """Read what `dataclasses.asdict` made of one."""
        tuples = {
            key: tuple(stored.get(key, ())) for key in ("rotation_deg", "translation_deg", "focal_per_view")
        }
        aligned = {key: DepthScores(**value) for key, value in stored.get("aligned", {}).items()}
        return cls(**{**stored, **tuples, "aligned": aligned})
