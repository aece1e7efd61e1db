"""`g2vlm data check`: a sample of every scene, compared view with view."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from g2vlm.data.checking.diagnosis import Verdict, diagnose
from g2vlm.data.checking.views import Matcher, Matches, checked_view
from g2vlm.data.posed_frame import PosedFrame
from g2vlm.data.shards.reading import PreparedData, SceneIndex

_GAPS = (1, 2, 4)
"""Frames that are compared lie so far apart in the sample."""


@dataclass(frozen=True)
class CheckOptions:
    """How much is looked at."""

    scenes: int = 8
    """Evenly spread over all scenes."""
    frames: int = 24
    """Of each scene: runs of neighbours, since frames far apart share nothing."""
    run: int = 12
    """Length of such a run."""


def check_data(
    data: PreparedData,
    options: CheckOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Verdict]:
    """Verdicts about some scenes of prepared data.

    Args:
        data: what is checked.
        options: how much is looked at.
        progress: called with scenes done and scenes in all.
    """
    options = options or CheckOptions()
    scenes = _spread(data.scenes, options.scenes)
    for done, scene in enumerate(scenes):
        yield check_frames(scene.name, [data[k] for k in _sample(scene, options)])
        if progress is not None:
            progress(done + 1, len(scenes))


def check_frames(scene: str, frames: Sequence[PosedFrame]) -> Verdict:
    """The verdict about some frames of one scene, in the order they were taken."""
    made = [checked_view(frame) for frame in frames]
    views = [view for view, _ in made]
    return diagnose(scene, views, shared_features([grey for _, grey in made]))


def shared_features(pictures: list) -> list[Matches]:
    """Features that neighbours in a list of grey pictures share; of few pictures, all that any two share."""
    count, matcher = len(pictures), Matcher(pictures)
    gaps = range(1, count) if count <= 6 else _GAPS
    pairs = [(k, k + gap) for gap in gaps for k in range(count - gap)]
    found = (matcher.between(*pair) for pair in pairs)
    return [matches for matches in found if matches is not None]


def _spread(items: Sequence[SceneIndex], count: int) -> list[SceneIndex]:
    if len(items) <= count:
        return list(items)
    return [items[k * len(items) // count] for k in range(count)]


def _sample(scene: SceneIndex, options: CheckOptions) -> list[int]:
    """Numbers of frames: all of a short scene, else runs of neighbours spread over it."""
    if scene.count <= options.frames:
        return list(range(scene.first, scene.first + scene.count))
    runs = max(1, options.frames // options.run)
    starts = [k * (scene.count - options.run) // max(1, runs - 1) if runs > 1 else 0 for k in range(runs)]
    return [scene.first + start + k for start in starts for k in range(options.run)]
