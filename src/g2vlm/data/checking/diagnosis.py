"""From errors to what is wrong and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from g2vlm.data.checking.errors import WORST, depth_disagreement, depth_ratio, pair_errors
from g2vlm.data.checking.hypotheses import (
    AS_GIVEN,
    Cause,
    Hypothesis,
    depth_hypotheses,
    depth_hypothesis,
    focal_hypothesis,
    intrinsics_hypotheses,
    pose_hypotheses,
)
from g2vlm.data.checking.views import CheckedView, Matches

_FEWEST_PAIRS = 2
_BETTER = 0.42
"""Another reading is taken to be right where its error is so much smaller than that of what is given."""
_MATTERS = 0.004
"""... and smaller by this share of the picture's width."""
_TIE, _TIE_WIDTH = 1.2, 0.0015
"""Readings whose errors differ by less, as a factor or in widths, explain the pictures equally well."""
_HOPELESS = 0.08
"""Share of the width above which what is given is wrong even if no other reading fits."""
_BROKEN_FRAME, _SOUND = 0.05, 0.03
"""Error of pairs with a broken frame, and largest error of most pairs where only some frames are broken."""
_UNIT_RANGE = (0.6, 1.6)
"""Of the ratio of depth to poses: sensors and trackers differ by less."""
_UNIT_KNOWN = 0.01


@dataclass(frozen=True)
class Verdict:
    """What was found out about one scene."""

    scene: str
    cause: Cause | None
    """None where it could not be told."""
    what: str
    fix: str
    num_pairs: int
    error: float
    """Of what is given, in widths of the picture; NaN where no pair could be compared."""
    error_right: float
    """The same once the cause is put right."""
    depth_error: float = float("nan")
    """Median relative disagreement of depth between views as given; NaN without depth."""
    depth_error_right: float = float("nan")
    frames: tuple[str, ...] = ()
    """Frames that are broken, where only some are."""

    @property
    def is_wrong(self) -> bool:
        """Whether something has to be done."""
        return self.cause not in (None, Cause.NOTHING)

    def line(self) -> str:
        """For people: what it looks like, the error as given and once put right, what to do."""
        if self.cause is None:
            return f"{self.scene}: cannot tell, {self.what}"
        shown = f"{self.error:.2%} of the width between views"
        if np.isfinite(self.depth_error):
            shown = f"depth differs by {self.depth_error:.1%}, pixels by {shown}"
        if self.cause is Cause.NOTHING:
            return f"{self.scene}: fine ({shown}; {self.num_pairs} pairs)"
        better = f"{self.error_right:.2%} once put right, {self.error:.2%} of the width as given"
        if np.isfinite(self.depth_error_right):
            better = (
                f"median depth error {self.depth_error_right:.1%} once put right, {self.depth_error:.1%} as "
                f"given; pixels {better}"
            )
        named = f" ({', '.join(self.frames[:5])})" if self.frames else ""
        return f"{self.scene}: {self.what}{named}: {better}. What to do: {self.fix}."


def diagnose(scene: str, views: Sequence[CheckedView], matches: Sequence[Matches]) -> Verdict:
    """What is wrong with the cameras and depth of some views, if anything.

    Args:
        scene: its name in the verdict.
        views: in the order they were taken.
        matches: features that pairs of them share.
    """
    nan = float("nan")
    if len(matches) < _FEWEST_PAIRS:
        return Verdict(scene, None, "too few pictures share features", "", len(matches), nan, nan)
    given = pair_errors(views, matches)
    broken = _broken_frames(len(views), matches, given)
    if broken:
        return _broken_verdict(scene, views, matches, given, broken)
    best, right = _best(views, matches, given)
    if not _is_better(right, given):
        best, right = _unit_by_motion(views, matches, given)
    if best.cause is not Cause.NOTHING:
        return _verdict(scene, views, matches, best)
    if np.median(given) > _HOPELESS:
        what = "cameras contradict the pictures, and no usual mistake explains it"
        fix = "look at some frames with  g2vlm data show, and at how poses and pictures were matched"
        return Verdict(scene, Cause.UNKNOWN, what, fix, len(matches), float(given.mean()), nan)
    return _verdict(scene, views, matches, AS_GIVEN)


def _broken_verdict(
    scene: str,
    views: Sequence[CheckedView],
    matches: Sequence[Matches],
    given: np.ndarray,
    broken: list[int],
) -> Verdict:
    sound = [k for k, m in enumerate(matches) if m.first not in broken and m.second not in broken]
    return Verdict(
        scene,
        Cause.BROKEN_FRAMES,
        f"the poses of {len(broken)} of {len(views)} frames look broken",
        "leave these frames out, or look for what happened to their poses",
        len(matches),
        float(given.mean()),
        float(given[sound].mean()) if sound else float("nan"),
        frames=tuple(views[k].name for k in broken),
    )


def _best(
    views: Sequence[CheckedView], matches: Sequence[Matches], given: np.ndarray
) -> tuple[Hypothesis, np.ndarray]:
    """The reading of least error that is not the given one, and its errors."""
    tried = pose_hypotheses() + intrinsics_hypotheses()
    if any(view.depth is not None for view in views):
        tried += depth_hypotheses()
    errors = [pair_errors(h.right(views), matches) for h in tried]
    sizes = np.array([_size(e) for e in errors])
    # Usual mistakes come first, and win where another reading is hardly better.
    number = int(np.argmax(sizes <= max(_TIE * sizes.min(), sizes.min() + _TIE_WIDTH)))
    best, right = tried[number], errors[number]
    if best.focal_factor is not None:
        for step in (1.1, 1.04, 1.015):
            finer = [focal_hypothesis(best.focal_factor * step**k) for k in (-2, -1, 1, 2)]
            for hypothesis in finer:
                found = pair_errors(hypothesis.right(views), matches)
                if _size(found) < _size(right):
                    best, right = hypothesis, found
    return best, right


def _size(errors: Float[np.ndarray, " pairs"]) -> float:
    return float(errors.mean() + np.median(errors))


def _is_better(right: np.ndarray, given: np.ndarray) -> bool:
    """Whether errors are smaller by far, on the whole or for most pairs."""
    return any(
        middle(right) < _BETTER * middle(given) and middle(given) - middle(right) > _MATTERS
        for middle in (np.mean, np.median)
    )


def _unit_by_motion(
    views: Sequence[CheckedView], matches: Sequence[Matches], given: np.ndarray
) -> tuple[Hypothesis, np.ndarray]:
    """A wrong unit of the depth that pictures hardly show, because the camera hardly moved."""
    ratio, known = depth_ratio(views, matches)
    if known < _UNIT_KNOWN or not ratio > 0 or _UNIT_RANGE[0] <= ratio <= _UNIT_RANGE[1]:
        return AS_GIVEN, given
    hypothesis = depth_hypothesis(1 / ratio)
    right = pair_errors(hypothesis.right(views), matches)
    return (hypothesis, right) if _size(right) < _size(given) else (AS_GIVEN, given)


def _verdict(
    scene: str, views: Sequence[CheckedView], matches: Sequence[Matches], best: Hypothesis
) -> Verdict:
    better = best.right(views)
    return Verdict(
        scene,
        best.cause,
        best.what,
        best.fix,
        len(matches),
        float(pair_errors(views, matches).mean()),
        float(pair_errors(better, matches).mean()),
        _middle(depth_disagreement(views, matches)),
        _middle(depth_disagreement(better, matches)),
    )


def _middle(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def _broken_frames(count: int, matches: Sequence[Matches], errors: np.ndarray) -> list[int]:
    """Numbers of frames that contradict most of those they are compared with, where most frames do not."""
    if np.median(errors) > _SOUND:
        return []
    limit = max(_BROKEN_FRAME, min(5 * float(np.median(errors)), WORST / 2))
    bad = errors > limit
    found = []
    for k in range(count):
        mine = np.array([k in (m.first, m.second) for m in matches])
        if mine.sum() >= 2 and bad[mine].mean() > 0.7:
            found.append(k)
    # A sound frame between two broken ones would be blamed too: without them it is not.
    innocent = []
    for k in found:
        others = {i for i in found if i != k}
        rest = [
            bool(is_bad)
            for m, is_bad in zip(matches, bad, strict=True)
            if k in (m.first, m.second) and not {m.first, m.second} & others
        ]
        if rest and np.mean(rest) <= 0.5:
            innocent.append(k)
    broken = [k for k in found if k not in innocent]
    return broken if len(broken) <= 0.4 * count else []
