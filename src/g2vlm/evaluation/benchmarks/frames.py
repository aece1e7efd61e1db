"""Real frames of one's own: groups of overlapping views with measured depth and poses.

Each group is reconstructed by itself and compared with the truth; beside the model stand methods that know
nothing, and classical ones with known intrinsics, on the same photos. Depth: one scale for a group (ratio of
medians, and median of ratios). Poses: pairs whose cameras are less than 2 cm apart have no direction and are
left out; opposite translations are wrong. Focal length: median of the views.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from g2vlm.errors import InputError
from g2vlm.evaluation.geometry import GeometryOptions
from g2vlm.evaluation.grouping import GroupOptions, choose_groups
from g2vlm.evaluation.metrics.depth import DepthAlignment
from g2vlm.evaluation.posed_frames import LAYOUT as JSON_LAYOUT
from g2vlm.evaluation.posed_frames import DepthLimits, FrameSet, find_frame_sets, trial_of
from g2vlm.evaluation.trials import Trial

VERSION = 1
LAYOUT = JSON_LAYOUT
LEAST_BASELINE_M = 0.02


@dataclass(frozen=True)
class FramesBenchmark:
    """Groups of all sets in a folder.

    Raises:
        InputError: no set is there, or no two frames of any overlap.
    """

    place: Path
    grouping: GroupOptions = field(default_factory=GroupOptions)
    own_groups: bool = True
    """Take the groups that a set lists itself, where it does."""
    limits: DepthLimits = field(default_factory=DepthLimits)

    def __post_init__(self) -> None:
        if self.grouping.size < 2 or self.grouping.num_groups < 1:
            raise InputError(
                f"Expected at least one group of two frames, got {self.grouping.num_groups} of "
                f"{self.grouping.size}."
            )
        if not self.scenes():
            raise InputError(
                f"Expected frames that overlap in {self.place}, found no group of {self.grouping.size}: ask "
                "for fewer views, or check poses and depth (`g2vlm data check`)."
            )

    @cached_property
    def _sets(self) -> dict[str, FrameSet]:
        return {one.name: one for one in find_frame_sets(self.place)}

    @cached_property
    def _groups(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Set and frames of each group by its name."""
        groups = {}
        for one in self._sets.values():
            listed = one.groups[: self.grouping.num_groups] if self.own_groups else ()
            chosen = listed or choose_groups(one.frames, self.grouping, self.limits)
            groups.update({f"{one.name}/{k:04d}": (one.name, group) for k, group in enumerate(chosen)})
        return groups

    @property
    def task(self) -> str:
        """Name and version."""
        return f"frames-{VERSION}"

    @property
    def geometry_options(self) -> GeometryOptions:
        """Pairs of cameras in one place are left out."""
        return GeometryOptions(min_baseline=LEAST_BASELINE_M, alignments=(DepthAlignment.MEDIAN_OF_RATIOS,))

    @property
    def settings(self) -> dict[str, Any]:
        """The groups by a digest of the frames in them, and how they are measured."""
        named = {
            name: [self._sets[one].frames[k].frame for k in group]
            for name, (one, group) in self._groups.items()
        }
        digest = hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]
        return {
            "sets": {name: len(one.frames) for name, one in self._sets.items()},
            "num_dropped": sum(one.num_dropped for one in self._sets.values()),
            "groups": digest,
            "num_groups": len(named),
            "grouping": asdict(self.grouping),
            "own_groups": self.own_groups,
            "depth_limits": asdict(self.limits),
            "geometry_options": self.geometry_options.to_json(),
        }

    def scenes(self) -> Sequence[str]:
        """`set/group`."""
        return list(self._groups)

    def load(self, scene: str) -> Trial:
        """Read the frames of one group."""
        name, group = self._groups[scene]
        return trial_of([self._sets[name].frames[k] for k in group], self.limits, part=name)
