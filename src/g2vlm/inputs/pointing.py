"""Places in images that a text names: points and boxes as people, benchmarks and models write them.

Understood are `(u, v)`, `[x, y]`, `(u=120, v=80)`, `[[x, y]]`, boxes `[left, top, right, bottom]` and
`<|box_start|>(x,y),(x,y)<|box_end|>`, with words such as "in image 2", "view 2", "Frame-3", "second photo".
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

_NUMBER = r"(?:[uvxy]\s*[=:]\s*)?(-?\d+(?:\.\d+)?)"
_COMMA = r"\s*,\s*"
_TAGGED_BOX = re.compile(
    rf"<\|box_start\|>\s*\({_NUMBER}{_COMMA}{_NUMBER}\){_COMMA}\({_NUMBER}{_COMMA}{_NUMBER}\)\s*<\|box_end\|>"
)
_BOX = re.compile(rf"([(\[])\s*{_NUMBER}{_COMMA}{_NUMBER}{_COMMA}{_NUMBER}{_COMMA}{_NUMBER}\s*[)\]]")
_POINT = re.compile(rf"([(\[])\s*{_NUMBER}{_COMMA}{_NUMBER}\s*[)\]]")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_IMAGE = r"(?:image|view|frame|photo|picture|img)s?"
_MENTION = re.compile(
    rf"\b{_IMAGE}\s*(?:no\.?|number|#|-|_)?\s*(\d+)\b|\b(\d+)(?:st|nd|rd|th)\s+{_IMAGE}\b"
    rf"|\b({'|'.join(_ORDINALS)})\s+{_IMAGE}\b",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"[.;?!]\s|\band\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.;?!]\s")
_FOLLOWS_WITHIN = 40
_THOUSAND = 1000.0


class Coordinates(StrEnum):
    """What numbers in a text count."""

    AUTO = "auto"
    """Fractions where none is above 1 and one is no integer; pixels in round brackets, and wherever a number
    is above 1000 or the text speaks of pixels; else thousandths, as SPAR-Bench and Qwen models write."""
    PIXELS = "pixels"
    """Pixels of the original photo, from 0."""
    THOUSANDTHS = "thousandths"
    """Thousandths of width and height."""
    FRACTIONS = "fractions"
    """Parts of width and height."""


@dataclass(frozen=True)
class NamedPlace:
    """A point, or the middle of a box, that a text names."""

    text: str
    """As it is written."""
    x: float
    y: float
    counted_in: Coordinates
    """Never `AUTO`."""
    view: int
    """Index of the view it lies in."""
    is_view_named: bool
    """False where no image was named, and the first one is meant."""

    def pixel(self, size: tuple[int, int]) -> tuple[float, float]:
        """(u, v) in a photo of this width and height, centres at integers."""
        if self.counted_in is Coordinates.PIXELS:
            return self.x, self.y
        unit = _THOUSAND if self.counted_in is Coordinates.THOUSANDTHS else 1.0
        # The range covers the picture from border to border.
        u, v = (value / unit * side - 0.5 for value, side in ((self.x, size[0]), (self.y, size[1])))
        return (
            min(max(u, -0.5), size[0] - 0.5) if 0 <= self.x <= unit else u,
            min(max(v, -0.5), size[1] - 0.5) if 0 <= self.y <= unit else v,
        )


class _Found(NamedTuple):
    start: int
    stop: int
    text: str
    x: float
    y: float
    largest: float
    is_round: bool


def named_places(
    text: str, names: Sequence[str], coordinates: Coordinates = Coordinates.AUTO
) -> tuple[NamedPlace, ...]:
    """The points and boxes that a text names, in order.

    An image is named by its number from 1 (from 0 if the text speaks of image 0), by "first", "second" ...,
    or by its file name. A point belongs to the image that is named right after it in the same phrase, else to
    the one named last before it, else to the next one in its sentence, else to the first.

    Args:
        text: a question or an answer.
        names: file names of the views, in order.
        coordinates: what the numbers count.
    """
    found = list(_find(text))
    if not found:
        return ()
    mentions = _mentions(text, names)
    counted = _counted_in(text, found, coordinates)
    places = []
    for index, each in enumerate(found):
        following = found[index + 1].start if index + 1 < len(found) else len(text)
        view = _view_of(text, each, following, mentions)
        places.append(
            NamedPlace(each.text, each.x, each.y, counted[index], view or 0, is_view_named=view is not None)
        )
    return tuple(places)


def _find(text: str) -> Iterator[_Found]:
    taken: list[tuple[int, int]] = []
    found = []
    for pattern in (_TAGGED_BOX, _BOX, _POINT):
        for match in pattern.finditer(text):
            if any(start < match.end() and match.start() < stop for start, stop in taken):
                continue
            taken.append(match.span())
            groups = match.groups()
            bracket = "[" if pattern is _TAGGED_BOX else groups[0]
            values = [float(value) for value in (groups if pattern is _TAGGED_BOX else groups[1:])]
            x, y = (sum(values[axis::2]) / len(values[axis::2]) for axis in (0, 1))
            found.append(_Found(*match.span(), match[0], x, y, max(values), bracket == "("))
    yield from sorted(found)


def _counted_in(text: str, found: Sequence[_Found], wish: Coordinates) -> list[Coordinates]:
    if wish is not Coordinates.AUTO:
        return [wish] * len(found)
    whole = all(each.x.is_integer() and each.y.is_integer() for each in found)
    if not whole and max(each.largest for each in found) <= 1:
        return [Coordinates.FRACTIONS] * len(found)
    of_pixels = re.search(r"\b(?:pixels?|px)\b", text, re.IGNORECASE) is not None
    of_thousandths = re.search(r"\b(?:0\s*(?:-|to)\s*1000|normali[sz]ed)\b", text, re.IGNORECASE) is not None
    if of_thousandths and not of_pixels:
        return [Coordinates.THOUSANDTHS] * len(found)
    if of_pixels or max(each.largest for each in found) > _THOUSAND:
        return [Coordinates.PIXELS] * len(found)
    return [Coordinates.PIXELS if each.is_round else Coordinates.THOUSANDTHS for each in found]


def _mentions(text: str, names: Sequence[str]) -> list[tuple[int, int]]:
    """(where it begins, index of the view) of every image that is named and exists."""
    numbered = []
    for match in _MENTION.finditer(text):
        ordinal = match[3].lower() if match[3] else None
        number = int(match[1] or match[2]) if ordinal is None else _ORDINALS.index(ordinal) + 1
        numbered.append((match.start(), number, ordinal is not None))
    from_zero = any(number == 0 for _, number, _ in numbered)
    mentions = [
        (start, number - (0 if from_zero and not is_ordinal else 1)) for start, number, is_ordinal in numbered
    ]
    for index, name in enumerate(names):
        mentions += [(match.start(), index) for match in re.finditer(re.escape(name), text)]
    return sorted(each for each in mentions if 0 <= each[1] < len(names))


def _view_of(text: str, place: _Found, following: int, mentions: Sequence[tuple[int, int]]) -> int | None:
    for start, view in mentions:
        between = text[place.stop : start]
        if (
            place.stop <= start < following
            and len(between) <= _FOLLOWS_WITHIN
            and not _BETWEEN.search(between)
        ):
            return view
    before = [view for start, view in mentions if start < place.start]
    if before:
        return before[-1]
    later = [(start, view) for start, view in mentions if start >= place.stop]
    if later and not _SENTENCE_END.search(text[place.stop : later[0][0]]):
        return later[0][1]
    return None
