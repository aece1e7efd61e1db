"""Places seen again: proposed by what views look like, believed only if their geometry agrees."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from g2vlm.errors import InputError
from g2vlm.scene.view import View
from g2vlm.video.overlaps import Overlap
from g2vlm.video.pieces import Piece

_BLOCK = 256
_POINTS_COMPARED = 4096
_SAME_DEPTH = 0.05
_LEAST_IN_COMMON = 0.1


@dataclass(frozen=True)
class LoopOptions:
    """How hard it is for two views to count as the same place."""

    max_loops: int = 16
    """Most loops that are reconstructed and checked."""
    min_similarity: float = 0.4
    """Least cosine of centred descriptors, whatever the video."""
    relative_similarity: float = 0.7
    """Least cosine as a share of that between views half a window apart, which do overlap."""
    max_deviation: float = 0.1
    """Largest deviation, relative to extent, of the joint reconstruction from the pieces it connects."""
    min_agreement: float = 0.7
    """Least agreement of the two places' surfaces, relative to that of neighbouring frames."""

    def __post_init__(self) -> None:
        shares = (self.min_similarity, self.relative_similarity, self.max_deviation, self.min_agreement)
        if self.max_loops < 0 or not all(0 <= share <= 1 for share in shares):
            raise InputError(f"Expected loop options from 0 to 1 and max_loops of 0 or more, got {self}.")


@dataclass(frozen=True)
class LoopCandidate:
    """Two frames far apart in time that look alike."""

    first: int
    """Earlier frame, counted from 0."""
    second: int
    """Later frame."""
    similarity: float
    """Cosine of their centred descriptors, averaged with their neighbours."""


def find_loops(
    descriptors: Float32[np.ndarray, "frames channels"], window: int, options: LoopOptions
) -> list[LoopCandidate]:
    """Pairs of frames, at least two windows apart, that look like the same place; best first.

    What all frames share is subtracted first. A pair is proposed if each is the other's best match among the
    frames far from it (give or take two), if it looks almost as alike as views half a window apart do, and if
    neighbours in time confirm it. Of pairs close to each other only the best is kept.

    Args:
        descriptors: one row for each frame of the video.
        window: frames of a piece.
        options: thresholds and the largest number of pairs.
    """
    centred = descriptors - descriptors.mean(axis=0, dtype=np.float64).astype(np.float32)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    far = 2 * window
    if len(unit) <= far or options.max_loops == 0:
        return []
    near = (unit[: -(window // 2)] * unit[window // 2 :]).sum(axis=1)
    threshold = max(options.min_similarity, options.relative_similarity * float(np.median(near)))
    best, similarity = _best_matches(unit, far)
    candidates = []
    for first in np.flatnonzero(similarity >= threshold):
        second = int(best[first])
        if first < second and abs(int(best[second]) - int(first)) <= 2:
            confirmed = _with_neighbours(unit, int(first), second)
            if confirmed >= threshold:
                candidates.append(LoopCandidate(int(first), second, confirmed))
    return _spread(candidates, window // 2, options.max_loops)


def _best_matches(unit: np.ndarray, far: int) -> tuple[np.ndarray, np.ndarray]:
    """For every frame the likest one at least `far` frames away; by blocks, never all pairs at once."""
    count = len(unit)
    best, similarity = np.zeros(count, dtype=np.int64), np.full(count, -1.0, dtype=np.float32)
    for start in range(0, count, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, count))
        table = unit[rows] @ unit.T
        table[np.abs(rows[:, None] - np.arange(count)) < far] = -1.0
        best[rows] = table.argmax(axis=1)
        similarity[rows] = table[np.arange(len(rows)), best[rows]]
    return best, similarity


def _with_neighbours(unit: np.ndarray, first: int, second: int) -> float:
    """Mean cosine of a pair and its neighbours, walking on in the same or the opposite direction."""
    means = []
    for direction in (1, -1):
        pairs = [(first + k, second + direction * k) for k in (-2, -1, 0, 1, 2)]
        inside = [(a, b) for a, b in pairs if 0 <= a < len(unit) and 0 <= b < len(unit)]
        means.append(float(np.mean([unit[a] @ unit[b] for a, b in inside])))
    return max(means)


def _spread(candidates: list[LoopCandidate], apart: int, limit: int) -> list[LoopCandidate]:
    kept: list[LoopCandidate] = []
    for one in sorted(candidates, key=lambda candidate: -candidate.similarity):
        close = any(
            abs(one.first - other.first) < apart and abs(one.second - other.second) < apart for other in kept
        )
        if not close and len(kept) < limit:
            kept.append(one)
    return kept


def frames_around(candidate: LoopCandidate, num_frames: int, window: int) -> tuple[list[int], list[int]]:
    """Frames of a joint reconstruction: half a window about each of the two, inside the video."""
    half = max(2, window // 2)
    runs = []
    for frame in (candidate.first, candidate.second):
        start = min(max(frame - half // 2, 0), max(num_frames - half, 0))
        runs.append(list(range(start, min(start + half, num_frames))))
    return runs[0], runs[1]


def agreement_between(first: Sequence[View], second: Sequence[View]) -> float:
    """How well two groups of views of one reconstruction agree where they see the same space, 0 to 1 or so.

    A view agrees with another by the share of its points, of those that fall into the other image, that lie
    at the depth the other sees there, give or take 5 %. Each view is compared with the one of the other group
    that most of its points agree with. The mean over both groups is divided by the same mean between
    neighbours inside the groups, which do show the same place: noise and occlusion lower both alike.
    Returns 0 where the groups hardly see a point in common.

    Args:
        first: at least one view.
        second: at least one view.
    """
    across = [*_landings(first, second), *_landings(second, first)]
    within = [
        one
        for group in (first, second)
        for before, after in pairwise(group)
        for one in (_landing(before, after), _landing(after, before))
    ]
    if np.mean([landing.inside for landing in across]) < _LEAST_IN_COMMON:
        return 0.0
    usual = float(np.mean([landing.ratio for landing in within])) if within else 1.0
    return float(np.mean([landing.ratio for landing in across])) / max(usual, 1e-6)


class _Landing(NamedTuple):
    """Where the points of a view fall in another view."""

    inside: float
    """Share of the points that fall onto valid pixels of the other image."""
    same: float
    """Share that lies at the other view's depth."""

    @property
    def ratio(self) -> float:
        """Of the points inside, those at the other view's depth."""
        return self.same / self.inside if self.inside else 0.0


def _landings(group: Sequence[View], other: Sequence[View]) -> list[_Landing]:
    return [max((_landing(view, one) for one in other), key=lambda landing: landing.same) for view in group]


def _landing(view: View, other: View) -> _Landing:
    step = max(1, round(np.sqrt(view.valid.size / _POINTS_COMPARED)))
    points = view.points_world[::step, ::step][view.valid[::step, ::step]].astype(np.float64)
    T = other.T_world_camera.astype(np.float64)
    local = (points - T[:3, 3]) @ T[:3, :3]
    z = local[:, 2]
    pixel = local @ other.K.astype(np.float64).T
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = np.rint(pixel[:, 0] / z), np.rint(pixel[:, 1] / z)
    inside = (z > 0) & (u >= 0) & (u < other.width) & (v >= 0) & (v < other.height)
    if not inside.any():
        return _Landing(0.0, 0.0)
    row, column = v[inside].astype(np.int64), u[inside].astype(np.int64)
    depth, known = other.depth[row, column], other.valid[row, column]
    same = known & (np.abs(depth - z[inside]) <= _SAME_DEPTH * np.maximum(depth, z[inside]))
    return _Landing(float(known.sum()) / len(points), float(same.sum()) / len(points))


@dataclass(frozen=True, eq=False)
class Loop:
    """A checked candidate."""

    candidate: LoopCandidate
    agreement: float
    """See `agreement_between`."""
    deviation: float
    """Largest deviation from the pieces it connects, relative to extent."""
    accepted: bool
    """Whether both are within the options."""


def check_loop(
    candidate: LoopCandidate,
    joint: Piece,
    num_first: int,
    overlaps: Sequence[Overlap],
    options: LoopOptions,
) -> Loop:
    """Decide on a candidate from the joint reconstruction of its two places.

    Args:
        candidate: the pair of frames.
        joint: reconstruction of the frames around both, those of the first place first.
        num_first: how many views belong to the first place.
        overlaps: of the joint piece with every piece it connects.
        options: thresholds.
    """
    agreement = agreement_between(joint.views[:num_first], joint.views[num_first:])
    deviation = max((overlap.deviation for overlap in overlaps), default=np.inf)
    accepted = agreement >= options.min_agreement and deviation <= options.max_deviation
    return Loop(candidate, agreement, float(deviation), accepted)
