"""What the geometry of a scene says beside an answer: depths and distances of the points it is about."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from g2vlm.errors import InputError
from g2vlm.inputs.pointing import Coordinates, NamedPlace, named_places
from g2vlm.scene.measurement import Measurement
from g2vlm.scene.scene import Scene

_MOST_PAIRED = 3
_MOST_PLACES = 16
NOTHING_NAMED = (
    "nothing to measure: neither the question nor the answer names a point. Write points as (u, v) in pixels "
    "of a "
    "photo or [x, y] in thousandths, with the image where there are several: the point (120, 80) in image 2"
)


@dataclass(frozen=True)
class Cited:
    """One length that the scene has for the points of a question or an answer."""

    kind: str
    """"depth" or "distance"."""
    places: tuple[NamedPlace, ...]
    """The points, one or two."""
    measurement: Measurement | None
    """None if it cannot be measured."""
    problem: str = ""
    """Why not."""

    def text(self, scene: Scene) -> str:
        """One line to print beside the words."""
        where = " and ".join(_where(place, scene) for place in self.places)
        between = "between " if self.kind == "distance" else "of "
        told = str(self.measurement) if self.measurement is not None else f"not measured: {self.problem}"
        return f"{self.kind} {between}{where}: {told}"


@dataclass(frozen=True)
class Citation:
    """All that the scene says beside one answer."""

    lengths: tuple[Cited, ...]
    """Depth of every point named, and distances between them where they are two or three."""
    source: str
    """"question", "answer", or "" where nothing is named."""
    lines: tuple[str, ...]
    """The same to print, with the scale; or that nothing is named."""

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def summary(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "named_in": self.source or None,
            "note": self.lines[-1],
            "measurements": [
                {
                    "kind": each.kind,
                    "points": [
                        {
                            "text": place.text,
                            "view": place.view,
                            "view_named": place.is_view_named,
                            "counted_in": place.counted_in.value,
                        }
                        for place in each.places
                    ],
                    "value": None if each.measurement is None else each.measurement.value,
                    "uncertainty": None if each.measurement is None else each.measurement.uncertainty,
                    "unit": None if each.measurement is None else each.measurement.scale.unit,
                    "problem": each.problem or None,
                }
                for each in self.lengths
            ],
        }


def cite(
    scene: Scene, question: str, answer: str = "", coordinates: Coordinates = Coordinates.AUTO
) -> Citation:
    """Measure what a question names, or, if it names nothing, what its answer names.

    Args:
        scene: of the same photos.
        question: in which points may be named, see `inputs.pointing`.
        answer: to it.
        coordinates: what the numbers count.
    """
    names = [view.name for view in scene.views]
    for source, text in (("question", question), ("answer", answer)):
        places = named_places(text, names, coordinates)[:_MOST_PLACES]
        if places:
            lengths = tuple(_lengths(scene, places))
            scale = f"scale {scene.scale}"
            return Citation(lengths, source, (*(each.text(scene) for each in lengths), scale))
    return Citation((), "", (NOTHING_NAMED,))


def _lengths(scene: Scene, places: Sequence[NamedPlace]) -> list[Cited]:
    found = [_measured(scene, "depth", (place,)) for place in places]
    if 2 <= len(places) <= _MOST_PAIRED:
        found += [_measured(scene, "distance", pair) for pair in combinations(places, 2)]
    return found


def _measured(scene: Scene, kind: str, places: tuple[NamedPlace, ...]) -> Cited:
    ends = [(place.view, place.pixel(scene.views[place.view].original_size)) for place in places]
    try:
        if kind == "depth":
            return Cited(kind, places, scene.measure_depth(*ends[0]))
        return Cited(kind, places, scene.measure_distance(*ends[0], *ends[1]))
    except InputError as error:
        return Cited(kind, places, None, str(error))


def _where(place: NamedPlace, scene: Scene) -> str:
    unit = "" if place.counted_in is Coordinates.PIXELS else f" ({place.counted_in.value})"
    image = f" in {scene.views[place.view].name}" if len(scene) > 1 else ""
    taken = "" if place.is_view_named or len(scene) == 1 else ", since no image is named"
    return f"{place.text}{unit}{image}{taken}"
