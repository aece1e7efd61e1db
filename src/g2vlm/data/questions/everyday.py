"""Questions as people ask them, with answers in whole sentences; training only, no benchmark asks them."""

from g2vlm.data.questions.observations import Observations
from g2vlm.data.questions.one_view import seen_in
from g2vlm.data.questions.question import AnswerKind, Question, QuestionFamily, Reference
from g2vlm.data.questions.several_views import countable
from g2vlm.data.world.draws import Draws
from g2vlm.data.world.furniture import CATALOGUE
from g2vlm.data.world.layout import SceneObject

_ABSENT_SHARE = 0.25


def everyday_question(seen: Observations, draws: Draws) -> Question | None:
    """How far something is, named as briefly as it can be; some of these things are not there.

    Distances are from the camera of the first view that shows the thing.
    """
    if draws.chance(_ABSENT_SHARE):
        present = {thing.noun for thing in seen.objects}
        noun = draws.choice(sorted(set(CATALOGUE) - present))
        return _question(seen, _asked(draws, noun), f"I see no {noun}.", ())
    views = range(seen.num_views)
    named = {thing.instance: thing for view in views for thing in seen.named(view)}
    if not named:
        return None
    thing = draws.choice([named[instance] for instance in sorted(named)])
    alone = len(countable(seen).get(thing.noun, ())) == 1
    return _distance(seen, draws, thing, thing.noun if alone and draws.chance(0.5) else thing.label)


def _distance(seen: Observations, draws: Draws, thing: SceneObject, name: str) -> Question:
    view = seen.views_showing(thing)[0]
    value = f" is {seen.distance(view, thing):.1f} m"
    origin = "away" if seen.num_views == 1 else f"from the camera of view {view + 1}"
    places = seen_in(seen.views_showing(thing), thing)
    references = (Reference(name, places), Reference(thing.label, seen_in((view,), thing), value))
    return _question(seen, _asked(draws, name), f"The {thing.label}{value} {origin}.", references)


def _asked(draws: Draws, name: str) -> str:
    return draws.choice(
        (
            f"How far is the {name} from me in the image?",
            f"How far is the {name} from me?",
            f"How far away is the {name}?",
            f"How far is it to the {name}?",
        )
    )


def _question(seen: Observations, text: str, answer: str, references: tuple[Reference, ...]) -> Question:
    return Question(
        family=QuestionFamily.CAMERA_DISTANCE,
        kind=AnswerKind.NUMERIC,
        text=text,
        answer=answer,
        views=tuple(range(seen.num_views)),
        reasoning="",
        references=references,
    )
