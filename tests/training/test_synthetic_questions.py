"""Which questions of a sample are asked together."""

from g2vlm.data.questions.question import AnswerKind, Marker, MarkerColour, Question, QuestionFamily
from g2vlm.training.sources.synthetic_questions import _compatible

FAMILY = QuestionFamily


def question(family: QuestionFamily, views: tuple[int, ...], *colours: MarkerColour) -> Question:
    markers = tuple(Marker(0, 20 * k + 5, 5, colour) for k, colour in enumerate(colours))
    choices = tuple(f"view {k + 1}" for k in range(len(views))) if family is FAMILY.WHICH_VIEW else ()
    return Question(
        family, AnswerKind.NUMERIC, "Which view?", "A", views, "So it is view 1.", choices, markers=markers
    )


def test_questions_with_markers_come_first_and_share_no_colour() -> None:
    plain = question(FAMILY.COUNTING, (0,))
    red = question(FAMILY.POINT_DEPTH, (0,), MarkerColour.RED)
    also_red = question(FAMILY.DEPTH_ORDER, (0,), MarkerColour.GREEN, MarkerColour.RED)
    assert _compatible([plain, plain, red, also_red], (1, 112), 2) == [red, plain]


def test_the_view_that_shows_something_is_asked_in_any_order_other_questions_in_theirs() -> None:
    shuffled = question(FAMILY.WHICH_VIEW, (2, 0, 1))
    (asked,) = _compatible([shuffled, question(FAMILY.COUNTING, (1, 0, 2))], (3, 112), 4)
    assert asked.views == (0, 1, 2)
    assert asked.choices[0] == "view 3"
    assert asked.reasoning == "So it is view 3."
