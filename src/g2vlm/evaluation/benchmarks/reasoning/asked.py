"""What the benchmarks of questions share: places with questions about their photos."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from g2vlm.errors import InputError
from g2vlm.evaluation.geometry import GeometryOptions
from g2vlm.evaluation.trials import Aggregate, Item, ItemGroup, Trial
from g2vlm.inputs.photos import load_photos

Photos = Callable[[], tuple[Image.Image, ...]]
"""Decodes the photos of some questions; nothing is read before they are asked."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Questions about the same photos."""

    photos: Photos
    items: tuple[Item, ...]


@dataclass(frozen=True, eq=False)
class Place:
    """Everything that is asked about one place: its questions depend on each other."""

    name: str
    asked: tuple[Asked, ...]


@dataclass(frozen=True, eq=False)
class ReasoningBenchmark:
    """Questions with a benchmark's own rules.

    Raises:
        InputError: there are no questions.
    """

    task: str
    """Name and version."""
    path: Path
    """File of the questions."""
    places: tuple[Place, ...]
    aggregates: tuple[Aggregate, ...]
    choices: dict[str, Any]
    """Prompts and other choices that figures depend on."""
    geometry_options: GeometryOptions = field(default_factory=GeometryOptions)

    def __post_init__(self) -> None:
        if not self.places:
            raise InputError(f"Expected questions in {self.path}, found none that can be asked.")

    @property
    def settings(self) -> dict[str, Any]:
        """The file by name and content, how many questions, and the prompts."""
        names = hashlib.sha256("\n".join(self.scenes()).encode()).hexdigest()[:16]
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()[:16] if self.path.is_file() else ""
        questions = sum(len(asked.items) for place in self.places for asked in place.asked)
        return {
            "file": self.path.name,
            "sha256": digest,
            "places": names,
            "num_questions": questions,
            **self.choices,
        }

    def scenes(self) -> Sequence[str]:
        """Names of the places."""
        return [place.name for place in self.places]

    def load(self, scene: str) -> Trial:
        """Decode the photos of one place."""
        place = self.places[self.scenes().index(scene)]
        return Trial(groups=tuple(ItemGroup(asked.photos(), asked.items) for asked in place.asked))


def spread(places: Sequence[Place], most: int | None) -> tuple[Place, ...]:
    """At most so many places, evenly spread: files are sorted by kind, and the first ones are all of one."""
    if most is None or len(places) <= most:
        return tuple(places)
    chosen = np.linspace(0, len(places) - 1, most).round().astype(int)
    return tuple(places[k] for k in chosen)


def photo_files(paths: Sequence[Path]) -> Photos:
    """Reads picture files.

    Raises:
        InputError: on construction, if one does not exist.
    """
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise InputError(f"image not found: {missing[0]}")

    def read() -> tuple[Image.Image, ...]:
        return tuple(load_photos(path).photos[0].image for path in paths)

    return read


def grouped(entries: Sequence[tuple[str, Photos, Item, object]]) -> list[Place]:
    """Places of questions, by name; questions with the same key share one look at the photos.

    Args:
        entries: place, photos, question, and what tells apart the photos of a place.
    """
    places: dict[str, dict[object, tuple[Photos, list[Item]]]] = {}
    for name, photos, item, key in entries:
        places.setdefault(name, {}).setdefault(key, (photos, []))[1].append(item)
    return [
        Place(name, tuple(Asked(photos, tuple(items)) for photos, items in groups.values()))
        for name, groups in places.items()
    ]


def first_existing(folder: Path, patterns: Sequence[str], layout: str) -> list[Path]:
    """Files of the first pattern that any match.

    Raises:
        InputError: none does; the message says which layout is expected.
    """
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if found:
            return found
    raise InputError(f"Expected {layout}; found none of {', '.join(patterns)} in {folder}.")
