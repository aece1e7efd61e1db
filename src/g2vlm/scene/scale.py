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

    @property
    def unit(self) -> str:
        """Unit symbol to print after a length: "m", or "units" if the factor to metres is unknown."""
        return "m" if self.kind is ScaleKind.METRIC else "units"
