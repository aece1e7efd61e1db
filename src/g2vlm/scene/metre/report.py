"""What a known thing said about a scene, and how well the scene agrees with it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """What became of a known thing."""

    METRE = "metre"
    """It fixed the unit."""
    COMPARED = "compared"
    """Something more trusted fixed the unit; its own figure is told beside."""
    CAMERAS = "cameras"
    """It changed cameras or the world frame, not the unit."""


def percent(share: float) -> str:
    """A share as a number of percent with two digits that mean something: 0.53 %, 4.1 %, 310 %."""
    return f"{100 * share:.0f} %" if abs(share) >= 0.1 else f"{100 * share:.2g} %"


@dataclass(frozen=True)
class Finding:
    """One known thing after it was brought together with a scene."""

    source: str
    """What it is: "2 known distances", "depth of lidar/", ..."""
    fit: str
    """How it was fitted: "scale", "similarity", "scale of each view", "intrinsics"."""
    factor: float | None
    """Its unit, the metre if `is_metric`, per unit of the scene as it was; None if it tells none."""
    residual: float | None
    """Median absolute residual after the fit, in `unit`; None where none is left."""
    unit: str
    """Of the residual: "m", "px", or "units" where the metre is unknown."""
    num_inliers: int
    """How many of its data agree with the fit."""
    num_given: int
    """How many data it has."""
    relative_error: float | None = None
    """Standard error of `factor` as a fraction of it; None if unknown."""
    point_error: float | None = None
    """By what fraction of their distance single points are off; None if this does not tell."""
    is_metric: bool = True
    """Whether its own unit is the metre."""
    role: Role = Role.CAMERAS
    """What became of it."""
    notes: tuple[str, ...] = ()
    """What the user should know: how it was matched, what was left out."""
    residuals: tuple[float, ...] = field(default=(), repr=False)
    """Of each datum, in the order given, where there are at most a thousand."""

    def __str__(self) -> str:
        parts = [f"{self.source}: {self.fit}"]
        if self.factor is not None:
            per = "m" if self.is_metric else "of its units"
            error = "" if self.relative_error is None else f" +- {percent(self.relative_error)}"
            parts.append(f"1 unit was {self.factor:.6g} {per}{error}")
        if self.residual is not None:
            parts.append(f"median residual {self.residual:.3g} {self.unit}")
        parts.append(f"{self.num_inliers} of {self.num_given} agree")
        if self.role is Role.COMPARED:
            parts.append("compared only")
        return ", ".join(parts) + "".join(f"; {note}" for note in self.notes)

    def summary(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "source": self.source,
            "fit": self.fit,
            "factor": self.factor,
            "residual": self.residual,
            "unit": self.unit,
            "inliers": self.num_inliers,
            "given": self.num_given,
            "relative_error": self.relative_error,
            "point_error": self.point_error,
            "is_metric": self.is_metric,
            "role": self.role.value,
            "notes": list(self.notes),
        }
