"""Questions that one view answers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations
from typing import TypeVar

from jaxtyping import Float64
from numpy import ndarray

from g2vlm.data.questions.forms import Ask, AskForm
from g2vlm.data.questions.observations import Observations
from g2vlm.data.questions.question import (
    Marker,
    MarkerColour,
    Quantity,
    Question,
    QuestionFamily,
    Reference,
    SeenAt,
    Topic,
    at_marker,
    choice_question,
    quantity_question,
)
from g2vlm.data.world.draws import Draws
from g2vlm.data.world.layout import SceneObject

Item = TypeVar("Item")

_DEPTH_RANGE_M = (0.8, 5.0)
_DISTANCE_RANGE_M = (0.5, 5.0)
_CAMERA_RANGE_M = (0.8, 6.0)
_COLOURS = tuple(MarkerColour)
_TRIES = 12
_NEAR_ENOUGH = 0.22


def log_uniform(draws: Draws, interval: tuple[float, float]) -> float:
    """A number whose logarithm is uniform: every relative error is then equally hard everywhere."""
    return interval[0] * (interval[1] / interval[0]) ** draws.unit()


def nearest_to(wanted: float, items: Sequence[Item], key: Callable[[Item], float]) -> Item | None:
    """The item whose number is nearest to the wanted one; None where none is within about 25 %.

    Drawing the number before the item spreads answers evenly: taking any item would make the middle of the
    usual range a safe guess.
    """
    if not items:
        return None
    best = min(items, key=lambda item: abs(math.log(key(item) / wanted)))
    return best if abs(math.log(key(best) / wanted)) < _NEAR_ENOUGH else None


def _any_view(seen: Observations, draws: Draws) -> int:
    return draws.integer((0, seen.num_views - 1))


def _two_named(seen: Observations, view: int, draws: Draws) -> tuple[SceneObject, SceneObject] | None:
    things = draws.shuffled(seen.named(view))
    return (things[0], things[1]) if len(things) >= 2 else None


def point_depth(seen: Observations, draws: Draws) -> Question | None:
    """How far a marked point is along the viewing direction."""
    pixels = [(view, *seen.random_pixel(draws)) for view in range(seen.num_views) for _ in range(_TRIES)]
    found = nearest_to(
        log_uniform(draws, _DEPTH_RANGE_M), pixels, key=lambda p: float(seen.depth[p[0], p[2], p[1]])
    )
    if found is None:
        return None
    view, u, v = found
    depth = float(seen.depth[view, v, u])
    dot = seen.marker(view, (u, v), draws.choice(_COLOURS))
    name = f"the {dot.colour.word} point"
    stem = draws.choice(
        (
            f"What is the depth of {name}?",
            f"How far is {name} from the camera plane?",
            f"Estimate the depth at {name}.",
        )
    )
    quantity = Quantity(depth, "metres", (0.5, 7.0))
    measured = f"The depth at {name} is {quantity.written()} m."
    reference = Reference(f"{dot.colour.word} point", at_marker(dot), f" is {quantity.written()} m")
    ask = Ask(AskForm.POINT_DEPTH, (f"{dot.colour.word} point",))
    topic = Topic(QuestionFamily.POINT_DEPTH, (view,), (dot,), references=(reference,), ask=ask)
    return quantity_question(topic, draws, stem, measured, quantity)


def depth_order(seen: Observations, draws: Draws) -> Question | None:
    """Which of three or four marked points is nearest or farthest."""
    view, count = _any_view(seen, draws), draws.integer((3, 4))
    pixels: list[tuple[int, int]] = []
    for _ in range(_TRIES * 2):
        candidate = seen.random_pixel(draws)
        apart = all(math.dist(candidate, other) > 0.15 * seen.width for other in pixels)
        depths = [seen.depth[view, v, u] for u, v in pixels]
        depth = seen.depth[view, candidate[1], candidate[0]]
        if apart and all(abs(math.log(depth / other)) > 0.15 for other in depths):
            pixels.append(candidate)
        if len(pixels) == count:
            break
    if len(pixels) < count:
        return None
    colours = draws.shuffled(_COLOURS)[:count]
    dots = tuple(seen.marker(view, pixel, colour) for pixel, colour in zip(pixels, colours, strict=True))
    depths = [float(seen.depth[view, v, u]) for u, v in pixels]
    nearest = draws.chance(0.5)
    right = depths.index(min(depths) if nearest else max(depths))
    stem = draws.choice(
        (
            f"Which point is {'nearest to' if nearest else 'farthest from'} the camera?",
            f"Which marked point has the {'smallest' if nearest else 'largest'} depth?",
            f"Of the marked points, which is {'closest to' if nearest else 'most distant from'} the camera?",
        )
    )
    words = [colour.word for colour in colours]
    items, references = _listed_at(dots, depths)
    wrong = [word for k, word in enumerate(words) if k != right]
    ask = Ask(AskForm.NEAREST_POINT if nearest else AskForm.FARTHEST_POINT)
    topic = Topic(
        QuestionFamily.DEPTH_ORDER, (view,), dots, references=references, decides=items[right], ask=ask
    )
    return choice_question(topic, draws, stem, f"The depths are: {', '.join(items)}.", words[right], wrong)


def _listed_at(dots: Sequence[Marker], lengths_m: Sequence[float]) -> tuple[list[str], tuple[Reference, ...]]:
    """Lengths by the colours of their dots, and what these words refer to."""
    values = [f" {length:.1f} m" for length in lengths_m]
    items = [f"{dot.colour.word}{value}" for dot, value in zip(dots, values, strict=True)]
    references = [
        Reference(dot.colour.word, at_marker(dot), value) for dot, value in zip(dots, values, strict=True)
    ]
    return items, tuple(references)


def _listed_on(
    dots: Sequence[Marker], things: Sequence[SceneObject], lengths_m: Sequence[float]
) -> tuple[list[str], tuple[Reference, ...]]:
    """Lengths of marked objects, likewise: what an object is tells more of its size than its picture does."""
    items, references = [], []
    for dot, thing, length in zip(dots, things, lengths_m, strict=True):
        on, name, value = " on the", f"{dot.colour.word} on the {thing.noun}", f" {length:.1f} m"
        items.append(name + value)
        references += [
            Reference(dot.colour.word, at_marker(dot), on),
            Reference(name, seen_in((dot.view,), thing), value),
        ]
    return items, tuple(references)


def seen_in(views: Sequence[int], thing: SceneObject) -> tuple[SeenAt, ...]:
    """An object as a place in some views."""
    return tuple(SeenAt(view, instance=thing.instance) for view in views)


def object_distance(seen: Observations, draws: Draws) -> Question | None:
    """How far two objects are from each other."""
    view = _any_view(seen, draws)
    pairs = [
        (first, second, math.dist(first.centre_m, second.centre_m))
        for first, second in permutations(draws.shuffled(seen.named(view)), 2)
    ]
    found = nearest_to(log_uniform(draws, _DISTANCE_RANGE_M), pairs, key=lambda pair: pair[2])
    if found is None:
        return None
    first, second, distance = found
    stem = draws.choice(
        (
            f"What is the distance between the centres of the {first.label} and the {second.label}?",
            f"How far apart are the middle of the {first.label} and the middle of the {second.label}?",
            f"Measure from the centre of the {first.label} to the centre of the {second.label}.",
        )
    )
    quantity = Quantity(distance, "metres", (0.35, 7.0))
    places = [_where(seen, view, thing) for thing in (first, second)]
    measured = (
        f"The {first.label}{places[0]}, the {second.label}{places[1]}. They are {quantity.written()} m apart."
    )
    references = tuple(
        Reference(thing.label, seen_in((view,), thing), place)
        for thing, place in zip((first, second), places, strict=True)
    )
    ask = Ask(AskForm.OBJECT_DISTANCE, (first.label, second.label))
    topic = Topic(QuestionFamily.OBJECT_DISTANCE, (view,), references=references, ask=ask)
    return quantity_question(topic, draws, stem, measured, quantity)


def on_plan(point_camera: Float64[ndarray, " 3"]) -> str:
    """Where a point is on the plan of a camera, for lists: the shortest words that say it."""
    x, _, z = point_camera
    return f" {abs(x):.1f} m {'left' if x < 0 else 'right'} at {z:.1f} m"


def _where(seen: Observations, view: int, thing: SceneObject) -> str:
    """Where an object is on the plan of the camera that sees it."""
    x, _, z = seen.in_camera(view, thing.centre_m)
    return f" is {z:.1f} m ahead and {abs(x):.1f} m {'left' if x < 0 else 'right'}"


def camera_distance(seen: Observations, draws: Draws) -> Question | None:
    """How far an object is from the camera."""
    view = _any_view(seen, draws)
    thing = nearest_to(
        log_uniform(draws, _CAMERA_RANGE_M), seen.named(view), key=lambda item: seen.distance(view, item)
    )
    if thing is None:
        return None
    quantity = Quantity(seen.distance(view, thing), "metres", (0.5, 8.0))
    stem = draws.choice(
        (
            f"How far is the centre of the {thing.label} from the camera?",
            f"What is the distance from the camera to the middle of the {thing.label}?",
            f"How many metres away is the {thing.label}, measured to its centre?",
        )
    )
    _, _, z = seen.in_camera(view, thing.centre_m)
    depth, distance = f" has depth {z:.1f} m", f" is {quantity.written()} m"
    measured = f"The {thing.label}{depth}. It{distance} from the camera."
    places = seen_in((view,), thing)
    references = (Reference(thing.label, places, depth), Reference("It", places, distance))
    ask = Ask(AskForm.CAMERA_DISTANCE, (thing.label,))
    topic = Topic(QuestionFamily.CAMERA_DISTANCE, (view,), references=references, ask=ask)
    return quantity_question(topic, draws, stem, measured, quantity)


def relative_position(seen: Observations, draws: Draws) -> Question | None:
    """Left or right, above or below, nearer or farther, as the camera sees two objects."""
    view = _any_view(seen, draws)
    relation = draws.choice((_left_or_right, _above_or_below, _nearer_or_farther))
    return relation(seen, view, draws)


def _left_or_right(seen: Observations, view: int, draws: Draws) -> Question | None:
    pair = _two_named(seen, view, draws)
    if pair is None:
        return None
    first, second = pair
    angles = [seen.bearing(view, thing) for thing in pair]
    if abs(angles[0] - angles[1]) < 0.1 or max(map(abs, angles)) > 1.3:
        return None
    correct, wrong = ("left", "right") if angles[0] < angles[1] else ("right", "left")
    stem = draws.choice(
        (
            f"Seen from the camera, is the {first.label} to the left or to the right of the {second.label}?",
            f"On which side of the {second.label} is the {first.label} in the view?",
            f"Is the {first.label} left or right of the {second.label}?",
        )
    )
    sides = [_side(angle) for angle in angles]
    measured = f"The {first.label}{sides[0]}. The {second.label}{sides[1]}."
    references = tuple(
        Reference(thing.label, seen_in((view,), thing), side) for thing, side in zip(pair, sides, strict=True)
    )
    ask = Ask(AskForm.LEFT_OR_RIGHT, (first.label, second.label))
    topic = Topic(QuestionFamily.RELATIVE_POSITION, (view,), references=references, ask=ask)
    return choice_question(topic, draws, stem, measured, correct, [wrong])


def _side(angle_rad: float) -> str:
    degrees = round(math.degrees(angle_rad))
    return f" is {abs(degrees)} degrees to the {'left' if degrees < 0 else 'right'}"


def _two_marked(
    seen: Observations, view: int, draws: Draws
) -> tuple[tuple[SceneObject, SceneObject], tuple[MarkerColour, MarkerColour], Topic] | None:
    """Two marked objects: without their nouns, only the picture can tell which one is the higher."""
    things = draws.shuffled(seen.shown(view))[:2]
    colours = draws.shuffled(_COLOURS)[:2]
    dots = seen.mark(view, things, colours, draws) if len(things) == 2 else None
    if dots is None:
        return None
    topic = Topic(QuestionFamily.RELATIVE_POSITION, (view,), dots)
    return (things[0], things[1]), (colours[0], colours[1]), topic


def _above_or_below(seen: Observations, view: int, draws: Draws) -> Question | None:
    found = _two_marked(seen, view, draws)
    if found is None:
        return None
    (first, second), colours, topic = found
    heights = [-first.centre_m[1], -second.centre_m[1]]
    if abs(heights[0] - heights[1]) < 0.25:
        return None
    correct, wrong = ("higher", "lower") if heights[0] > heights[1] else ("lower", "higher")
    one, other = (f"the object with the {colour.word} dot" for colour in colours)
    stem = draws.choice(
        (
            f"Above the floor, is the centre of {one} higher or lower than that of {other}?",
            f"Is the middle of {one} higher or lower than the middle of {other}?",
        )
    )
    items, references = _listed_on(topic.markers, (first, second), heights)
    ask = Ask(AskForm.HIGHER_OR_LOWER, (one.removeprefix("the "), other.removeprefix("the ")))
    topic = replace(topic, references=references, ask=ask)
    measured = f"The heights are: {', '.join(items)}."
    return choice_question(topic, draws, stem, measured, correct, [wrong])


def _nearer_or_farther(seen: Observations, view: int, draws: Draws) -> Question | None:
    found = _two_marked(seen, view, draws)
    if found is None:
        return None
    (first, second), colours, topic = found
    distances = [seen.distance(view, first), seen.distance(view, second)]
    if abs(math.log(distances[0] / distances[1])) < 0.15:
        return None
    correct, wrong = ("nearer", "farther") if distances[0] < distances[1] else ("farther", "nearer")
    one, other = (f"the object with the {colour.word} dot" for colour in colours)
    stem = draws.choice(
        (
            f"Is the centre of {one} nearer to the camera or farther from it than that of {other}?",
            f"Compared with {other}, is {one} nearer or farther, measured to the centres?",
        )
    )
    items, references = _listed_at(topic.markers, distances)
    ask = Ask(AskForm.NEARER_OR_FARTHER, (one.removeprefix("the "), other.removeprefix("the ")))
    topic = replace(topic, references=references, ask=ask)
    measured = f"The distances are: {', '.join(items)}."
    return choice_question(topic, draws, stem, measured, correct, [wrong])


def size_comparison(seen: Observations, draws: Draws) -> Question | None:
    """Which of the marked objects is taller or wider."""
    view, count = _any_view(seen, draws), draws.integer((2, 4))
    things = draws.shuffled(seen.shown(view))[:count]
    if len(things) < 2:
        return None
    taller = draws.chance(0.5)
    # Width is the longer horizontal side, whichever way the object is turned.
    sizes = [thing.size_m[1] if taller else max(thing.size_m[0], thing.size_m[2]) for thing in things]
    ranked = sorted(sizes)
    if ranked[-1] / ranked[-2] < 1.2:
        return None
    colours = draws.shuffled(_COLOURS)[: len(things)]
    dots = seen.mark(view, things, colours, draws)
    if dots is None:
        return None
    right = sizes.index(ranked[-1])
    words = [f"the {colour.word} one" for colour in colours]
    dimension = "tallest" if taller else "widest"
    stem = draws.choice(
        (
            f"Which of the objects with a dot is the {dimension} in reality?",
            f"Each dot marks an object. Which object is {dimension}?",
        )
    )
    items, references = _listed_on(dots, things, sizes)
    wrong = [word for k, word in enumerate(words) if k != right]
    ask = Ask(AskForm.TALLEST if taller else AskForm.WIDEST)
    topic = Topic(
        QuestionFamily.SIZE_COMPARISON, (view,), dots, references=references, decides=items[right], ask=ask
    )
    return choice_question(topic, draws, stem, f"The sizes are: {', '.join(items)}.", words[right], wrong)
