"""What a question is, and the small rules that all families share."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from g2vlm.data.questions.forms import Ask
from g2vlm.data.world.draws import Draws

LETTERS = "ABCD"
REASONING_REQUEST = " Think step by step."
"""Added to questions whose answer states what was measured before it concludes."""


class QuestionFamily(Enum):
    """What is asked about; the families follow those of SPAR-Bench."""

    POINT_DEPTH = "point_depth"
    """Depth of a marked point."""
    DEPTH_ORDER = "depth_order"
    """Which marked point is nearest or farthest."""
    OBJECT_DISTANCE = "object_distance"
    """Distance between two objects of one view."""
    CAMERA_DISTANCE = "camera_distance"
    """Distance from the camera to an object."""
    RELATIVE_POSITION = "relative_position"
    """Left or right, above or below, nearer or farther, as the camera sees it."""
    VIEWPOINT_POSITION = "viewpoint_position"
    """Left or right for somebody who stands at one object and faces another."""
    SIZE_COMPARISON = "size_comparison"
    """Which marked object is taller or wider."""
    COUNTING = "counting"
    """How many things of a kind can be seen."""
    WHICH_VIEW = "which_view"
    """The one view that shows an object."""
    CORRESPONDENCE = "correspondence"
    """The same surface point in another view."""
    CAMERA_TRANSLATION = "camera_translation"
    """Direction or length of the camera's way between two views."""
    CAMERA_ROTATION = "camera_rotation"
    """Direction or angle of the camera's turn between two views."""
    CROSS_VIEW_DISTANCE = "cross_view_distance"
    """Distance between objects that no single view shows together."""
    CROSS_VIEW_POSITION = "cross_view_position"
    """Side on which an object lies for the camera of a view that does not show it."""


class AnswerKind(Enum):
    """How an answer is written and judged."""

    CHOICE = "choice"
    """One of the letters A to D."""
    NUMERIC = "numeric"
    """A number in the unit that the question names."""


class MarkerColour(Enum):
    """Colours of markers, far from each other and from most of a room; values are RGB in [0, 1]."""

    RED = (1.0, 0.0, 0.0)
    GREEN = (0.0, 1.0, 0.0)
    BLUE = (0.0, 0.2, 1.0)
    YELLOW = (1.0, 1.0, 0.0)
    MAGENTA = (1.0, 0.0, 1.0)

    @property
    def word(self) -> str:
        """The colour's name in a question."""
        return self.name.lower()


@dataclass(frozen=True)
class Marker:
    """A dot that is drawn onto a view."""

    view: int
    """Index of the view in the sample."""
    u: int
    """Column of the middle, pixels of the sample."""
    v: int
    """Row of the middle."""
    colour: MarkerColour


@dataclass(frozen=True)
class SeenAt:
    """A part of a view; with neither of the two below, all of it."""

    view: int
    """Index of the view in the sample."""
    instance: int | None = None
    """Number of an object: wherever the view shows it."""
    pixel: tuple[int, int] | None = None
    """Column and row of one surface point."""


@dataclass(frozen=True)
class Reference:
    """Words that speak of something the views show; training may point the attention of these words there."""

    name: str
    """Words of the question or of its reasoning, wherever they stand, such as "red chair" or "view 2"."""
    places: tuple[SeenAt, ...]
    """Where it is seen."""
    value: str = ""
    """What follows the name where the reasoning states something measured there, such as " is 2.4 m away":
    those words are read off the same places."""


@dataclass(frozen=True)
class Question:
    """A question about some views of a sample, with its answer."""

    family: QuestionFamily
    kind: AnswerKind
    text: str
    """The whole question: what is asked, the choices if there are any, and how to answer."""
    answer: str
    """Canonical: a letter such as "B", or a number such as "2.4"."""
    views: tuple[int, ...]
    """Indices of the sample's views that are shown; the text counts them from 1 in this order."""
    reasoning: str
    """Two steps that end in the answer: the measured geometry, then the conclusion."""
    choices: tuple[str, ...] = ()
    """Texts of the choices in the order of their letters; empty for numeric questions."""
    markers: tuple[Marker, ...] = ()
    needs_multiple_views: bool = False
    """Whether no single view of `views` is enough."""
    references: tuple[Reference, ...] = ()
    """What the words of the question and of its reasoning speak of."""
    decides: str = ""
    """The one item that the reasoning lists from which its conclusion follows, if there is one."""
    ask: Ask | None = None
    """What is asked, apart from the words; None where it cannot be asked in other words."""
    unit: str = ""
    """Unit of a number, such as "metres" or "degrees"; empty for counts and choices."""
    said: str = ""
    """The answer as it is given where that is not `answer` itself, such as "left" for "A"."""
    listed: tuple[str, ...] = ()
    """How the text lists each choice, such as "(A) left"; empty where it lists none."""

    @property
    def given_answer(self) -> str:
        """The answer as it is given."""
        return self.said or self.answer

    @property
    def reasoned_answer(self) -> str:
        """The answer with its reasoning, for the interleaved variant of the training."""
        return f"{self.reasoning} Answer: {self.given_answer}"


@dataclass(frozen=True)
class Topic:
    """The parts of a question that do not depend on how it is answered."""

    family: QuestionFamily
    views: tuple[int, ...]
    markers: tuple[Marker, ...] = ()
    needs_multiple_views: bool = False
    references: tuple[Reference, ...] = ()
    shows_answer: tuple[SeenAt, ...] = ()
    """Where the right choice can be read off, if it can."""
    decides: str = ""
    """As `Question.decides`."""
    ask: Ask | None = None
    """As `Question.ask`."""


def choice_question(
    topic: Topic, draws: Draws, stem: str, measured: str, correct: str, wrong: Sequence[str]
) -> Question:
    """A multiple-choice question with its choices in random order.

    Args:
        topic: what it is about.
        draws: the question's random stream.
        stem: the question itself.
        measured: first step of the reasoning.
        correct: text of the right choice.
        wrong: texts of one to three wrong choices.
    """
    choices = draws.shuffled([correct, *wrong])
    letter = LETTERS[choices.index(correct)]
    conclusion, references = "So it is", topic.references
    if topic.shows_answer:
        references = (*references, Reference(conclusion, topic.shows_answer, f" {correct}"))
    listed = tuple(f"{LETTERS[k]}. {choice}" for k, choice in enumerate(choices))
    return Question(
        family=topic.family,
        kind=AnswerKind.CHOICE,
        text=f"{stem} {' '.join(listed)} Answer with the letter.",
        answer=letter,
        views=topic.views,
        reasoning=f"{measured} {conclusion} {correct}.",
        choices=tuple(choices),
        markers=topic.markers,
        needs_multiple_views=topic.needs_multiple_views,
        references=references,
        decides=topic.decides,
        ask=topic.ask,
        listed=listed,
    )


@dataclass(frozen=True)
class Quantity:
    """A measured number and how to write it."""

    value: float
    unit: str
    plausible: tuple[float, float]
    """Range that wrong choices stay in where they can, so that none is out of the question."""
    decimals: int = 1

    def written(self, value: float | None = None) -> str:
        """The number (or another one of the same kind) as answers show it, without the unit."""
        return f"{self.value if value is None else value:.{self.decimals}f}"


def renumbered(question: Question) -> Question:
    """The same question with its views counted in ascending order of the sample's views."""
    order = sorted(question.views)

    def in_order(words: str) -> str:
        return re.sub(
            r"\bview (\d+)",
            lambda found: f"view {1 + order.index(question.views[int(found[1]) - 1])}",
            words,
        )

    references = tuple(
        replace(reference, name=in_order(reference.name), value=in_order(reference.value))
        for reference in question.references
    )
    return replace(
        question,
        text=in_order(question.text),
        reasoning=in_order(question.reasoning),
        choices=tuple(in_order(choice) for choice in question.choices),
        listed=tuple(in_order(choice) for choice in question.listed),
        ask=None
        if question.ask is None
        else replace(question.ask, names=tuple(in_order(name) for name in question.ask.names)),
        decides=in_order(question.decides),
        references=references,
        views=tuple(order),
    )


def at_marker(marker: Marker) -> tuple[SeenAt, ...]:
    """The place of a dot."""
    return (SeenAt(marker.view, pixel=(marker.u, marker.v)),)


_RATIOS = (1.35, 1.7)


def quantity_question(topic: Topic, draws: Draws, stem: str, measured: str, quantity: Quantity) -> Question:
    """A question for a number: open, or with four choices a constant factor apart.

    The rank of the right number among the choices is drawn, so that neither "the middle one" nor "the
    smallest" is a good guess.
    """
    options = _options(draws, quantity) if draws.chance(0.5) else None
    if options is not None:
        correct, *wrong = options
        return choice_question(topic, draws, stem, measured, correct, wrong)
    return Question(
        family=topic.family,
        kind=AnswerKind.NUMERIC,
        text=f"{stem} Answer with a number in {quantity.unit}.",
        answer=quantity.written(),
        views=topic.views,
        reasoning=measured,
        markers=topic.markers,
        needs_multiple_views=topic.needs_multiple_views,
        references=topic.references,
        ask=topic.ask,
        unit=quantity.unit,
    )


def _options(draws: Draws, quantity: Quantity) -> list[str] | None:
    """Four choices, the right one first; None where rounding makes two of them equal."""
    ratio, (low, high) = draws.uniform(_RATIOS), quantity.plausible
    fitting = [
        rank
        for rank in range(4)
        if quantity.value * ratio**-rank >= low and quantity.value * ratio ** (3 - rank) <= high
    ]
    rank = draws.choice(fitting or range(4))
    numbers = [quantity.written(quantity.value * ratio ** (k - rank)) for k in range(4)]
    if len(set(numbers)) < 4:
        return None
    unit = "m" if quantity.unit == "metres" else quantity.unit
    numbers.insert(0, numbers.pop(rank))
    return [f"{number} {unit}" for number in numbers]
