"""Questions that take several views."""

import math
from collections.abc import Sequence

import numpy as np

from g2vlm.data.questions.forms import Ask, AskForm
from g2vlm.data.questions.observations import Observations
from g2vlm.data.questions.one_view import log_uniform, nearest_to, on_plan, seen_in
from g2vlm.data.questions.phrasing.vocabulary import plural_of, with_article
from g2vlm.data.questions.question import (
    AnswerKind,
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

_MAX_VIEWS_TO_CHOOSE = 4
_TRIES = 24
_CROSS_DISTANCE_RANGE_M = (1.0, 6.0)
# Small counts are so common that they would otherwise be the safe guess: a count is drawn first, and then a
# noun that has it.
_WANTED_COUNTS = (1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4)
_COUNT_TRIES = 3
_DISTANCE_TRIES = 4


def _all_views(seen: Observations) -> tuple[int, ...]:
    return tuple(range(seen.num_views))


def whole_views(views: Sequence[int]) -> tuple[Reference, ...]:
    """All of each view, named as a question about these views counts them: from "view 1" on."""
    return tuple(Reference(f"view {k}", (SeenAt(view),)) for k, view in enumerate(views, start=1))


def _things(seen: Observations, things: Sequence[SceneObject]) -> tuple[Reference, ...]:
    """Objects by their names, in every view that shows them."""
    return tuple(Reference(thing.label, seen_in(seen.views_showing(thing), thing)) for thing in things)


def two_views(seen: Observations, draws: Draws) -> tuple[int, int] | None:
    """Two different views in random order; None where there are not two."""
    if seen.num_views < 2:
        return None
    views = draws.shuffled(range(seen.num_views))
    return views[0], views[1]


def countable(seen: Observations) -> dict[str, list[SceneObject]]:
    """Things by noun, of nouns whose number is certain: no more than a sliver of any other is visible."""
    by_noun: dict[str, list[SceneObject]] = {}
    for thing in seen.objects:
        by_noun.setdefault(thing.noun, []).append(thing)
    certain = {}
    for noun, things in by_noun.items():
        sure = [thing for thing in things if seen.views_showing(thing)]
        if sure and not any(seen.pixels[:, thing.instance].any() for thing in things if thing not in sure):
            certain[noun] = sure
    return certain


def counting(seen: Observations, draws: Draws) -> Question | None:
    """How many things of a kind the views show."""
    by_noun = countable(seen)
    for _ in range(_COUNT_TRIES):
        wanted = draws.choice(_WANTED_COUNTS)
        nouns = [noun for noun, things in by_noun.items() if len(things) == wanted]
        if nouns:
            noun = draws.choice(nouns)
            return _how_many(seen, draws, noun, by_noun[noun])
    return None


def _how_many(seen: Observations, draws: Draws, noun: str, sure: list[SceneObject]) -> Question:
    count = len(sure)
    most = max(sum(seen.shows(view, thing) for thing in sure) for view in range(seen.num_views))
    several = seen.num_views > 1
    where = "in all views together" if several else "in the view"
    plural = plural_of(noun)
    stem = draws.choice(
        (
            f"How many {plural} are there {where}?",
            f"Count the {plural} {where}.",
            f"What is the number of different {plural} {where}?",
        )
    )
    listed = ", ".join(f"{with_article(thing.colour)} one" for thing in sure)
    measured = f"There is {listed}: {count} in total."
    places = tuple(place for thing in sure for place in seen_in(seen.views_showing(thing), thing))
    references = (Reference(plural, places), Reference("There is", places, f" {listed}: {count}"))
    topic = Topic(
        QuestionFamily.COUNTING,
        _all_views(seen),
        needs_multiple_views=count > most,
        references=references,
        ask=Ask(AskForm.COUNT, (plural,)),
    )
    if draws.chance(0.5):
        return Question(
            family=topic.family,
            kind=AnswerKind.NUMERIC,
            text=f"{stem} Answer with a number.",
            answer=str(count),
            views=topic.views,
            reasoning=measured,
            needs_multiple_views=topic.needs_multiple_views,
            references=topic.references,
            ask=topic.ask,
        )
    # The rank of the right number is drawn, so that the smallest choice is not a better guess than others.
    rank = draws.integer((0, min(3, count - 1)))
    numbers = [str(count - rank + k) for k in range(4)]
    correct = numbers.pop(rank)
    return choice_question(topic, draws, stem, measured, correct, numbers)


def which_view(seen: Observations, draws: Draws) -> Question | None:
    """The one view that shows an object."""
    if seen.num_views < 2:
        return None
    for thing in draws.shuffled(seen.objects):
        showing = seen.views_showing(thing)
        others = [view for view in range(seen.num_views) if view not in showing]
        if len(showing) != 1 or thing not in seen.named(showing[0]):
            continue
        if not all(seen.hides(view, thing) for view in others):
            continue
        # Paths tend to begin far away, where much is seen: in their own order the first view would be the
        # best guess.
        kept = draws.shuffled(others)[: _MAX_VIEWS_TO_CHOOSE - 1]
        views = tuple(draws.shuffled([showing[0], *kept]))
        correct = f"view {views.index(showing[0]) + 1}"
        wrong = [f"view {k + 1}" for k in range(len(views)) if views[k] != showing[0]]
        stem = draws.choice(
            (
                f"Which view shows the {thing.label}?",
                f"In which view can the {thing.label} be seen?",
                f"The {thing.label} is visible in only one view. Which one?",
            )
        )
        distance = f" is {seen.distance(showing[0], thing):.1f} m"
        measured = f"The {thing.label}{distance} from the camera that sees it."
        places = seen_in(showing, thing)
        # Behind the name of the object, "view 2" is the search for it in view 2.
        searched = (
            Reference(f"view {k}", places if view == showing[0] else (SeenAt(view),))
            for k, view in enumerate(views, start=1)
        )
        topic = Topic(
            QuestionFamily.WHICH_VIEW,
            views,
            needs_multiple_views=True,
            references=(*searched, Reference(thing.label, places, distance)),
            shows_answer=places,
            ask=Ask(AskForm.WHICH_VIEW, (thing.label,)),
        )
        return choice_question(topic, draws, stem, measured, correct, wrong)
    return None


def correspondence(seen: Observations, draws: Draws) -> Question | None:
    """The same surface point in another view."""
    pair = two_views(seen, draws)
    if pair is None:
        return None
    first, second = pair
    for _ in range(_TRIES):
        pixel = seen.random_pixel(draws)
        point = seen.point_world(first, *pixel)
        match = seen.pixel_in(second, point)
        # Seen again from the other side, the match must lead back: points at silhouettes do not.
        back = None if match is None else seen.pixel_in(first, seen.point_world(second, *match))
        if match is None or back is None or math.dist(back, pixel) > 1.5:
            continue
        pixels = [match]
        for _ in range(_TRIES):
            candidate = seen.random_pixel(draws)
            if all(math.dist(candidate, other) > 0.16 * seen.width for other in pixels):
                pixels.append(candidate)
            if len(pixels) == 4:
                return _correspondence(seen, draws, (first, second), pixel, pixels)
    return None


def _correspondence(
    seen: Observations,
    draws: Draws,
    views: tuple[int, int],
    pixel: tuple[int, int],
    pixels: list[tuple[int, int]],
) -> Question:
    query, *colours = draws.shuffled(tuple(MarkerColour))
    dots = (
        seen.marker(views[0], pixel, query),
        *(seen.marker(views[1], where, colour) for where, colour in zip(pixels, colours, strict=True)),
    )
    stem = draws.choice(
        (
            f"Which point in view 2 is the same place as the {query.word} point in view 1?",
            f"The {query.word} point in view 1 is seen again in view 2. Which dot marks it?",
            f"Find the point of view 2 that corresponds to the {query.word} point of view 1.",
        )
    )
    points = [seen.in_camera(views[0], seen.point_world(dot.view, dot.u, dot.v)) for dot in dots]
    places = [on_plan(point) for point in points]
    references = tuple(
        Reference(dot.colour.word, at_marker(dot), place) for dot, place in zip(dots, places, strict=True)
    )
    away = [f" is {float(np.linalg.norm(point - points[0])):.1f} m away" for point in points[1:]]
    candidates = zip(dots[1:], places[1:], away, strict=True)
    items = [f"{dot.colour.word}{place}{distance}" for dot, place, distance in candidates]
    # In the order of their words: in their own order, the right one would always be the first.
    measured = f"Seen from view 1: {query.word}{places[0]}. In view 2: {', '.join(sorted(items))}."
    topic = Topic(
        QuestionFamily.CORRESPONDENCE,
        views,
        dots,
        needs_multiple_views=True,
        references=references,
        shows_answer=at_marker(dots[1]),
        decides=items[0],
        ask=Ask(AskForm.SAME_POINT, (f"{query.word} point",)),
    )
    words = [colour.word for colour in colours]
    return choice_question(topic, draws, stem, measured, words[0], words[1:])


def _never_together(seen: Observations, draws: Draws) -> tuple[SceneObject, SceneObject] | None:
    """Two named objects that no view shows together: of all pairs the one nearest to a drawn distance."""
    things = draws.shuffled(list(_named_anywhere(seen).values()))
    pairs = [
        (first, second, math.dist(first.centre_m, second.centre_m))
        for k, first in enumerate(things)
        for second in things[k + 1 :]
        if all(seen.hides(view, second) for view in seen.views_showing(first))
        and all(seen.hides(view, first) for view in seen.views_showing(second))
    ]
    for _ in range(_DISTANCE_TRIES):
        best = nearest_to(log_uniform(draws, _CROSS_DISTANCE_RANGE_M), pairs, key=lambda pair: pair[2])
        if best is not None:
            return best[0], best[1]
    return None


def _named_anywhere(seen: Observations) -> dict[int, SceneObject]:
    """Objects with a name of their own that some view shows, by instance."""
    return {thing.instance: thing for view in range(seen.num_views) for thing in seen.named(view)}


def cross_view_distance(seen: Observations, draws: Draws) -> Question | None:
    """How far two objects are apart that are never seen together."""
    found = _never_together(seen, draws)
    if found is None:
        return None
    first, second = found
    view_first, view_second = (draws.choice(seen.views_showing(thing)) for thing in found)
    quantity = Quantity(math.dist(first.centre_m, second.centre_m), "metres", (0.7, 8.0))
    stem = draws.choice(
        (
            f"What is the distance between the centres of the {first.label} and the {second.label}?",
            f"How far apart are the middle of the {first.label} and the middle of the {second.label}?",
            f"No view shows both the {first.label} and the {second.label}. How far apart are their centres?",
        )
    )
    distances = [
        f" is {seen.distance(view, thing):.1f} m from the camera of view {view + 1}"
        for view, thing in ((view_first, first), (view_second, second))
    ]
    measured = (
        f"The {first.label}{distances[0]}. The {second.label}{distances[1]}. "
        f"They are {quantity.written()} m apart."
    )
    references = (
        *_things(seen, found),
        Reference(first.label, seen_in((view_first,), first), distances[0]),
        Reference(second.label, seen_in((view_second,), second), distances[1]),
    )
    topic = Topic(
        QuestionFamily.CROSS_VIEW_DISTANCE,
        _all_views(seen),
        needs_multiple_views=True,
        references=references,
        ask=Ask(AskForm.OBJECT_DISTANCE, (first.label, second.label)),
    )
    return quantity_question(topic, draws, stem, measured, quantity)


def cross_view_position(seen: Observations, draws: Draws) -> Question | None:
    """On which side of a camera an object lies that only other views show."""
    candidates = [
        (thing, view)
        for view in range(seen.num_views)
        for thing in seen.objects
        if seen.hides(view, thing) and any(thing in seen.named(other) for other in seen.views_showing(thing))
    ]
    for thing, view in draws.shuffled(candidates):
        angle = seen.bearing(view, thing)
        # Straight ahead (hidden by something) and straight behind have no side.
        if not 0.3 < abs(angle) < 2.8:
            continue
        correct, wrong = ("left", "right") if angle < 0 else ("right", "left")
        stem = draws.choice(
            (
                f"View {view + 1} does not show the {thing.label}. On which side of its camera is it?",
                f"For the camera of view {view + 1}, does the {thing.label} lie to the left or to the right?",
                f"To face the {thing.label}, would the camera of view {view + 1} turn left or right?",
            )
        )
        degrees = round(math.degrees(abs(angle)))
        side = f" is {degrees} degrees to the {correct}"
        measured = f"The {thing.label}{side} of the direction of view {view + 1}."
        references = (
            Reference(f"view {view + 1}", (SeenAt(view),)),
            Reference(thing.label, seen_in(seen.views_showing(thing), thing), side),
        )
        topic = Topic(
            QuestionFamily.CROSS_VIEW_POSITION,
            _all_views(seen),
            needs_multiple_views=True,
            references=references,
            ask=Ask(AskForm.HIDDEN_SIDE, (f"view {view + 1}", thing.label)),
        )
        return choice_question(topic, draws, stem, measured, correct, [wrong])
    return None


def viewpoint_position(seen: Observations, draws: Draws) -> Question | None:
    """Left or right for somebody who stands at one object and faces another."""
    things = draws.shuffled(list(_named_anywhere(seen).values()))
    if len(things) < 3:
        return None
    here, ahead, asked = things[:3]
    facing = _plan(here, ahead)
    towards = _plan(here, asked)
    if min(math.hypot(*facing), math.hypot(*towards)) < 0.4:
        return None
    # Headings grow to the right: x to the right of z, seen from above.
    angle = math.remainder(math.atan2(*towards) - math.atan2(*facing), 2 * math.pi)
    if not 0.35 < abs(angle) < 2.8:
        return None
    correct, wrong = ("left", "right") if angle < 0 else ("right", "left")
    stem = draws.choice(
        (
            f"Stand at the {here.label} facing the {ahead.label}. Is the {asked.label} left or right of you?",
            f"Somebody at the {here.label} looks at the {ahead.label}. On which side is the {asked.label}?",
        )
    )
    side = f" is {round(math.degrees(abs(angle)))} degrees to the {correct}"
    trio = (here, ahead, asked)
    together = [v for v in range(seen.num_views) if all(seen.shows(v, thing) for thing in trio)]
    views = (draws.choice(together),) if together and draws.chance(0.5) else _all_views(seen)
    places = [on_plan(seen.in_camera(views[0], thing.centre_m)) for thing in trio]
    listed = ", ".join(f"{thing.label}{place}" for thing, place in zip(trio, places, strict=True))
    measured = (
        f"Seen from view 1: {listed}. "
        f"Facing the {ahead.label} from the {here.label}, the {asked.label}{side}."
    )
    references = (
        *(
            Reference(thing.label, seen_in(seen.views_showing(thing), thing), place)
            for thing, place in zip(trio, places, strict=True)
        ),
        Reference(asked.label, seen_in(seen.views_showing(asked), asked), side),
    )
    topic = Topic(
        QuestionFamily.VIEWPOINT_POSITION,
        views,
        needs_multiple_views=not together,
        references=references,
        ask=Ask(AskForm.SEEN_FROM, (here.label, ahead.label, asked.label)),
    )
    return choice_question(topic, draws, stem, measured, correct, [wrong])


def _plan(start: SceneObject, end: SceneObject) -> tuple[float, float]:
    """Way from one object to another on the floor plan: x and z."""
    return end.centre_m[0] - start.centre_m[0], end.centre_m[2] - start.centre_m[2]
