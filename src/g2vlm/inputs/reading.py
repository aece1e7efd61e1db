"""Decoding the photos of a listing by several threads, each reduced as soon as it is decoded."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from g2vlm.errors import InputError, MemoryLimitError
from g2vlm.inputs.decode import Picture, read_array, read_file, read_image
from g2vlm.inputs.listing import Candidate, Skipped
from g2vlm.inputs.pages import read_pages
from g2vlm.inputs.photo import Photo
from g2vlm.inputs.reduction import Reduction
from g2vlm.inputs.spread import evenly_spread

_MOST_THREADS = 8  # each holds one picture at full size, 72 MB at 24 megapixels
_AHEAD = 2

_Outcome = tuple[int, Photo | str, str | None]


@dataclass
class Readings:
    """What became of the candidates."""

    photos: dict[int, Photo] = field(default_factory=dict)
    """Usable ones by their number."""

    skipped: dict[int, Skipped] = field(default_factory=dict)
    """The others."""

    projections: dict[int, str] = field(default_factory=dict)
    """What the usable ones are that no ordinary camera took."""

    def take(self, candidates: Sequence[Candidate], outcomes: Sequence[_Outcome]) -> None:
        """Sort in what a file gave."""
        for index, result, projection in outcomes:
            if isinstance(result, str):
                self.skipped[index] = Skipped(candidates[index].name, result)
            else:
                self.photos[index] = result
                if projection:
                    self.projections[index] = projection


def read_candidates(
    candidates: Sequence[Candidate],
    max_views: int | None,
    keep: Reduction | None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Readings:
    """Decode an evenly spread part of the candidates, replacing those that turn out to be unusable.

    Args:
        candidates: In order.
        max_views: How many; all if None.
        keep: What stays in memory of each; everything if None.
        on_progress: Called with (decoded, to be decoded).

    Returns:
        Photos of exactly the chosen candidates, and all that were found unusable on the way.

    Raises:
        MemoryLimitError: The machine has too little memory even for one photo after the other.
    """
    readings = Readings()
    first_size: tuple[int, int] | None = None
    with ThreadPoolExecutor(_num_threads()) as threads:
        while True:
            pool = [index for index in range(len(candidates)) if index not in readings.skipped]
            chosen = [pool[place] for place in evenly_spread(len(pool), max_views or len(pool))]
            missing = [index for index in chosen if index not in readings.photos]
            if not missing:
                break
            if first_size is None:
                # The first photo decides the size of all: it comes alone.
                readings.take(candidates, _read_group(candidates, missing[:1], keep, None))
                first = readings.photos.get(missing[0])
                first_size = first.size if first is not None else None
                continue
            read = partial(_read_group, candidates, keep=keep, first_size=first_size)
            for outcomes in _in_order(threads, read, _groups(candidates, missing)):
                readings.take(candidates, outcomes)
                if on_progress is not None:
                    on_progress(len(readings.photos), len(chosen))
    for table in (readings.photos, readings.projections):
        for index in set(table) - set(chosen):
            del table[index]
    return readings


def _num_threads() -> int:
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    return min(cores, _MOST_THREADS)


def _groups(candidates: Sequence[Candidate], indices: Sequence[int]) -> Iterator[list[int]]:
    """Cut a list where the file changes: pictures of one file are decoded in one go."""
    group: list[int] = []
    for index in indices:
        if group and (
            candidates[index].place is None or candidates[index].item is not candidates[group[-1]].item
        ):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def _in_order(
    threads: ThreadPoolExecutor,
    read: Callable[[list[int]], list[_Outcome]],
    groups: Iterator[list[int]],
) -> Iterator[list[_Outcome]]:
    """Results in the order of the groups, few of them ahead; what memory has no room for comes alone."""
    waiting: deque[tuple[list[int], Future[list[_Outcome]]]] = deque()
    limit = _num_threads() + _AHEAD
    try:
        while True:
            while len(waiting) < limit and (group := next(groups, None)) is not None:
                waiting.append((group, threads.submit(read, group)))
            if not waiting:
                return
            group, future = waiting.popleft()
            try:
                yield future.result()
            except MemoryLimitError:
                for _, other in waiting:
                    other.exception()
                limit = 1
                yield read(group)
    finally:
        for _, future in waiting:
            future.cancel()


def _read_group(
    candidates: Sequence[Candidate],
    group: list[int],
    keep: Reduction | None,
    first_size: tuple[int, int] | None,
) -> list[_Outcome]:
    """Decode candidates of one file, and keep what is needed of each."""
    outcomes: list[_Outcome] = []
    try:
        for index, result in _pictures(candidates, group):
            if isinstance(result, InputError):
                outcomes.append((index, str(result), None))
                continue
            photo = _photo(candidates[index], result)
            if keep is not None:
                renditions = keep.renditions(photo.size, first_size or photo.size)
                photo = photo.reduced(renditions, partial(_decode_again, candidates[index]))
            outcomes.append((index, photo, result.projection))
    except MemoryLimitError:
        raise
    except InputError as error:
        done = {index for index, _, _ in outcomes}
        outcomes += [(index, str(error), None) for index in group if index not in done]
    return outcomes


def read_candidate(candidate: Candidate) -> Photo:
    """Decode one candidate alone, at full size.

    Raises:
        InputError: It cannot be used; the message is the reason.
    """
    return _photo(candidate, _decode(candidate))


def _pictures(
    candidates: Sequence[Candidate], group: list[int]
) -> Iterator[tuple[int, Picture | InputError]]:
    first = candidates[group[0]]
    if isinstance(first.item, Path) and first.place is not None:
        indices = {candidates[index].place: index for index in group}
        wanted = [place for place in indices if place is not None]
        for place, result in read_pages(first.item, wanted):
            yield indices[place], result
        return
    for index in group:
        yield index, _decode(candidates[index])


def _decode(candidate: Candidate) -> Picture:
    if isinstance(candidate.item, np.ndarray):
        return read_array(candidate.item)
    if isinstance(candidate.item, Image.Image):
        return read_image(candidate.item)
    if candidate.place is None:
        return read_file(candidate.item)
    ((_, result),) = read_pages(candidate.item, [candidate.place])
    if isinstance(result, InputError):
        raise result
    return result


def _decode_again(candidate: Candidate) -> Image.Image:
    try:
        return _decode(candidate).image
    except InputError as error:
        raise InputError(f"Cannot read {candidate.name} again: {error}.") from error


def _photo(candidate: Candidate, picture: Picture) -> Photo:
    is_file = isinstance(candidate.item, Path)
    return Photo(
        picture.image,
        candidate.name,
        candidate.time_s,
        path=candidate.item.absolute() if is_file else None,  # type: ignore[union-attr]
        frame_index=candidate.place,
        visible=picture.visible,
    )
