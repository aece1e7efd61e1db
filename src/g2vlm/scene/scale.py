"""What one unit of a scene means."""

from dataclasses import dataclass
from enum import StrEnum


class ScaleKind(StrEnum):
    """Whether lengths are metres."""

    RELATIVE = "relative"
    """Lengths are right up to one common, unknown factor."""
    METRIC = "metric"
    """Lengths are metres."""


@dataclass(frozen=True)
class Scale:
    """The unit of a scene's lengths and where it comes from."""

    kind: ScaleKind
    source: str
    """What fixes the unit: "the network's own unit", "known distance between two pixels", ..."""
    residual_m: float | None = None
    """By how many metres the scene misses, in the median, what fixed its metre; None where nothing is left
    to compare, as after a single known distance."""
    relative_error: float | None = None
    """Standard error of the metre itself as a fraction of it; None if unknown."""
    point_error: float | None = None
    """By what fraction of their distance single points are off, once measured depth was compared; None
    before."""

    @property
    def unit(self) -> str:
        """Unit symbol to print after a length: "m", or "units" if the factor to metres is unknown."""
        return "m" if self.kind is ScaleKind.METRIC else "units"

    def __str__(self) -> str:
        text = f"{self.kind.value}: {self.source}"
        return text if self.residual_m is None else f"{text}, median residual {self.residual_m:.3g} m"
