"""Which frames of a video, or pictures of an animation, become views."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from g2vlm.errors import InputError
from g2vlm.inputs.spread import evenly_spread

MAX_FRAMES = 1000
"""Most frames that one choice may ask for."""

TIME_TOLERANCE_S = 1e-3  # containers round times to milliseconds
_STEADY = 0.75  # of a mean period, up to which frames may be off an even rhythm


class FrameChoiceKind(Enum):
    """How frames are chosen from a video."""

    COUNT = "count"
    """`count` frames spread evenly, by time, from the first to the last."""

    RATE = "rate"
    """`rate_hz` frames per second of the video, beginning with the first frame."""

    MOTION = "motion"
    """`count` frames from the first to the last with the same amount of movement between neighbours."""


def check_rate(rate_hz: float) -> None:
    """Refuse rates that choose nothing or make no sense.

    Raises:
        InputError: Not a positive number.
    """
    if not (np.isfinite(rate_hz) and rate_hz > 0):
        raise InputError(f"Expected a positive number of frames per second, got {rate_hz}.")


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a video become views."""

    kind: FrameChoiceKind = FrameChoiceKind.COUNT
    """The rule."""

    count: int = 16
    """Number of frames for `COUNT` and `MOTION`; all frames if the video has fewer."""

    rate_hz: float = 1.0
    """Frames per second of video for `RATE`; all frames if the video has fewer."""

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_FRAMES:
            raise InputError(f"Expected 1 to {MAX_FRAMES} frames to be taken from a video, got {self.count}.")
        check_rate(self.rate_hz)


def choose_frames(times_s: Sequence[float | None], choice: FrameChoice) -> list[int]:
    """Choose among frames by their times alone; `MOTION` then takes evenly spread ones.

    Args:
        times_s: When each frame is shown, ascending; None for pages, which have no time: they are spread by
            number, and a `RATE` takes all of them.
        choice: The rule.

    Returns:
        Distinct ascending places.
    """
    known = [time for time in times_s if time is not None]
    if choice.kind is FrameChoiceKind.RATE:
        return by_rate(known, choice.rate_hz) if len(known) == len(times_s) else list(range(len(times_s)))
    if len(known) < len(times_s) or choice.count >= len(times_s) or choice.count == 1:
        return evenly_spread(len(times_s), choice.count)
    times = np.array(known)
    even = np.linspace(times[0], times[-1], len(times))
    period = max(even[1] - even[0], TIME_TOLERANCE_S)
    if np.abs(times - even).max() <= _STEADY * period:
        return evenly_spread(len(times), choice.count)
    return nearest_distinct(times, choice.count)


def by_rate(times_s: Sequence[float], rate_hz: float) -> list[int]:
    """Places of the first frame in each period of 1 / rate_hz seconds."""
    slots = [int((time_s + TIME_TOLERANCE_S) * rate_hz) for time_s in times_s]
    return [place for place, slot in enumerate(slots) if place == 0 or slot > slots[place - 1]]


def nearest_distinct(travelled: np.ndarray, count: int) -> list[int]:
    """Choose places at even steps of an ascending quantity, first and last included.

    Args:
        travelled: Time, or distance moved, at each place.
        count: Number to choose, from 2 to less than there are.

    Returns:
        Distinct ascending places; where a jump attracts several, those after it.
    """
    last = len(travelled) - 1
    targets = np.linspace(travelled[0], travelled[-1], count)
    above = np.searchsorted(travelled, targets).clip(0, last)
    below = (above - 1).clip(0)
    is_below_nearer = np.abs(travelled[below] - targets) < np.abs(travelled[above] - targets)
    return _made_distinct(np.where(is_below_nearer, below, above).tolist(), last)


def at_even_steps(travelled: np.ndarray, count: int) -> list[int]:
    """As `nearest_distinct`, but the first place at which each step is complete: where things have moved."""
    targets = travelled[-1] * np.arange(count) / (count - 1)
    last = len(travelled) - 1
    return _made_distinct(np.searchsorted(travelled, targets).clip(0, last).tolist(), last)


def _made_distinct(chosen: list[int], last: int) -> list[int]:
    count = len(chosen)
    chosen[0], chosen[-1] = 0, last
    # A jump can attract several targets: spread them over the frames after it, then keep room for the last.
    for place in range(1, count):
        chosen[place] = max(chosen[place], chosen[place - 1] + 1)
    return [min(index, last + 1 - count + place) for place, index in enumerate(chosen)]
