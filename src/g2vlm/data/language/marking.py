"""Points and boxes that questions speak of, drawn onto their pictures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

_COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 255, 0), "yellow": (255, 255, 0)}
_WHOLE = 1000.0
"""Places are thousandths of the picture's width and height."""


@dataclass(frozen=True)
class Mark:
    """A point or a box on one of several pictures."""

    colour: str
    picture: int
    """Which picture, from 0."""
    place: tuple[float, ...]
    """x, y of a point or left, top, right, bottom of a box, in thousandths."""


def marks_of(record: Mapping[str, Any]) -> tuple[Mark, ...]:
    """Marks of a record of SPAR-7M: `red_point`, `blue_bbox` and so on, with `point_img_idx`, `bbox_img_idx`.

    They stand in the record itself or, as text, in its `spar_info`. Coloured points and boxes are listed in
    the order of their pictures' numbers; without numbers all are on the first picture.

    Raises:
        ValueError: a mark is malformed.
    """
    about = dict(record)
    if isinstance(record.get("spar_info"), str):
        about |= json.loads(record["spar_info"])
    marks = []
    for kind, length in (("point", 2), ("bbox", 4)):
        named = [(key, value) for key, value in about.items() if key.removesuffix(f"_{kind}") in _COLOURS]
        pictures = about.get(f"{kind}_img_idx") or [[0] * len(named)]
        numbers = pictures[0] if isinstance(pictures[0], list) else pictures
        for k, (key, places) in enumerate(named):
            place = tuple(float(x) for x in (places[0] if isinstance(places[0], list) else places))
            if len(place) != length or k >= len(numbers):
                raise ValueError(f"{key} with {length} numbers and a picture expected, got {places}")
            marks.append(Mark(key.removesuffix(f"_{kind}"), int(numbers[k]), place))
    return tuple(marks)


def draw_marks(image: Image.Image, marks: tuple[Mark, ...]) -> Image.Image:
    """A copy of a picture with its marks: filled discs and frames, a hundredth of the picture thick."""
    marked = image.convert("RGB")
    draw, size = ImageDraw.Draw(marked), (marked.width, marked.height)
    thick = max(2, round(max(size) / 150))
    for mark in marks:
        places = [x / _WHOLE * size[k % 2] for k, x in enumerate(mark.place)]
        colour = _COLOURS[mark.colour]
        if len(places) == 2:
            x, y = places
            draw.ellipse([x - 2 * thick, y - 2 * thick, x + 2 * thick, y + 2 * thick], fill=colour)
        else:
            left, right = sorted(places[0::2])
            top, bottom = sorted(places[1::2])
            draw.rectangle([left, top, right, bottom], outline=colour, width=thick)
    return marked
