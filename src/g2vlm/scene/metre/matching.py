"""Which view a line of a pose file, a depth map or a mask belongs to."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from g2vlm.errors import InputError
from g2vlm.scene.view import View

TIME_TOLERANCE_S = 0.02
"""How far time stamps may lie apart, as in the tools of the TUM benchmark."""

_TIME_STEM = re.compile(r"\d+\.\d+")


@dataclass(frozen=True)
class Match:
    """Pairs of views and given things."""

    pairs: tuple[tuple[int, int], ...]
    """(index of the view, index of the thing), in the order of the views."""
    how: str
    """"by file name", "by time" or "in order"."""

    def note(self, num_views: int) -> str:
        """One line for reports."""
        missing = num_views - len(self.pairs)
        rest = f", {missing} of {num_views} views without" if missing else ""
        return f"matched {self.how}{rest}"


def match_views(
    views: Sequence[View], names: Sequence[str | None], times: Sequence[float | None], what: str
) -> Match:
    """Match views with things by file name, else by time stamp, else, if there are as many, in order.

    Names are compared without folders, first with their ending, then without; in either case. The time of a
    view is that of its video frame; views and things whose file names are decimal numbers, as in TUM's data,
    have these as times.

    Args:
        views: of a scene.
        names: of the things; None where they have none.
        times: of the things in seconds; None where they have none.
        what: "poses", "depth maps", ... for the message.

    Raises:
        InputError: nothing matches, and there are not as many things as views.
    """
    for strip in (False, True):
        found = _by_name(views, names, strip)
        if found:
            return Match(tuple(found), "by file name")
    found = _by_time(views, [_time_of(*each) for each in zip(times, names, strict=True)])
    if found:
        return Match(tuple(found), "by time")
    if len(names) == len(views) and not any(names):
        return Match(tuple((i, i) for i in range(len(views))), "in order")
    shown = ", ".join(str(name) for name in list(names)[:3] if name) or "no names"
    raise InputError(
        f"Expected {what} that match the views by file name, by time, or in number, got {len(names)} "
        f"({shown}) for {len(views)} views ({', '.join(view.name for view in list(views)[:3])}): rename "
        "them, "
        "or give one for each view in order."
    )


def _keys(view: View, strip: bool) -> list[str]:
    names = (
        [view.name]
        if view.frame_index is not None or view.source_path is None
        else [
            view.name,
            view.source_path,
        ]
    )
    return [_key(name, strip) for name in names]


def _key(name: str, strip: bool) -> str:
    path = PurePath(name.replace("\\", "/"))
    return (path.stem if strip else path.name).casefold()


def _by_name(views: Sequence[View], names: Sequence[str | None], strip: bool) -> list[tuple[int, int]]:
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        if name:
            places.setdefault(_key(name, strip), place)
    found = []
    for index, view in enumerate(views):
        known = [places[key] for key in _keys(view, strip) if key in places]
        if known:
            found.append((index, known[0]))
    return found


def _time_of(time_s: float | None, name: str | None) -> float | None:
    """Seconds as given, or of a file name that is a decimal time stamp."""
    if time_s is not None:
        return float(time_s)
    stem = PurePath(name or "").stem
    return float(stem) if _TIME_STEM.fullmatch(stem) else None


def _by_time(views: Sequence[View], times: Sequence[float | None]) -> list[tuple[int, int]]:
    known = [(time, place) for place, time in enumerate(times) if time is not None]
    if not known:
        return []
    stamps = np.array([time for time, _ in known])
    found = []
    for index, view in enumerate(views):
        time = _time_of(view.time_s, view.name)
        if time is None:
            continue
        nearest = int(np.abs(stamps - time).argmin())
        if abs(stamps[nearest] - time) <= TIME_TOLERANCE_S:
            found.append((index, known[nearest][1]))
    return found
