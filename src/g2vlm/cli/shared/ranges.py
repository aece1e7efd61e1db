"""Which numbers options take: one table for all commands, since a name means the same in each."""

import math
from dataclasses import dataclass, fields
from typing import Any

from g2vlm.errors import InputError


@dataclass(frozen=True)
class Range:
    """Numbers that an option takes."""

    low: float | int
    high: float | int = math.inf
    above: bool = False
    """Whether `low` itself is left out."""
    below: bool = False
    """Whether `high` itself is left out."""

    def __contains__(self, value: float | int) -> bool:
        over = value > self.low if self.above else value >= self.low
        # What is not a number fails both comparisons.
        return over and (value < self.high if self.below else value <= self.high) and math.isfinite(value)

    def __str__(self) -> str:
        """`1 or more`, `above 0`, `0 to 1`, `0 to below 1`."""
        if self.high == math.inf:
            return f"above {self.low:g}" if self.above else f"{self.low:g} or more"
        low = f"above {self.low:g}" if self.above else f"{self.low:g}"
        return f"{low} to {'below ' if self.below else ''}{self.high:g}"


COUNT, COUNT_OR_NONE = Range(1), Range(0)
POSITIVE = Range(0, above=True)
SHARE, SHARE_BELOW_ALL = Range(0, 1), Range(0, 1, below=True)

RANGES = {
    **dict.fromkeys(
        (
            "accumulate",
            "actors",
            "budget",
            "every",
            "frame_count",
            "idle_minutes",
            "limit",
            "max_attempts",
            "max_duration_s",
            "max_files",
            "max_frames",
            "max_new_tokens",
            "max_points",
            "max_sessions",
            "max_upload_mb",
            "max_views",
            "num_scenes",
            "num_views",
            "processes",
            "repeats",
            "scenes_per_call",
            "scenes_per_shard",
            "steps",
            "threads",
            "tokens",
            "view_budget",
            "width",
            "window",
        ),
        COUNT,
    ),
    **dict.fromkeys(
        (
            "budget_s",
            "first_seed",
            "max_minutes",
            "num_missing",
            "num_questions",
            "overlap",
            "seed",
            "temperature",
            "top_k",
            "workers",
        ),
        COUNT_OR_NONE,
    ),
    **dict.fromkeys(
        (
            "cpus",
            "depth_scale",
            "frame_rate",
            "learning_rate",
            "max_depth_edge",
            "mesh_edge",
            "save_minutes",
            "voxel",
        ),
        POSITIVE,
    ),
    "held_out": SHARE_BELOW_ALL,
    "rooms_share": SHARE_BELOW_ALL,
    "min_confidence": SHARE,
    "top_p": Range(0, 1, above=True),
    "port": Range(0, 65535),
}
"""By the name of the option, 0 or more where it is not here; what else must hold, its command checks."""


def check_ranges(options: Any) -> None:
    """Refuse numbers out of range before anything is done with them.

    Args:
        options: the dataclass of a command.

    Raises:
        InputError: names the option, what it takes and what came.
    """
    for field in fields(options):
        value, allowed = getattr(options, field.name), RANGES.get(field.name, COUNT_OR_NONE)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and value not in allowed:
            raise InputError(f"Expected --{field.name} of {allowed}, got {value}.")
