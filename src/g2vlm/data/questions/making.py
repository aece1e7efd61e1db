"""From a rendered sample to questions about it."""

from collections.abc import Callable, Sequence

from g2vlm.data.questions import camera_motion, one_view, several_views
from g2vlm.data.questions.observations import Observations
from g2vlm.data.questions.question import Question, QuestionFamily
from g2vlm.data.samples import SceneSample
from g2vlm.data.world.draws import Draws
from g2vlm.errors import InputError

Maker = Callable[[Observations, Draws], Question | None]

MAKERS: dict[QuestionFamily, Maker] = {
    QuestionFamily.POINT_DEPTH: one_view.point_depth,
    QuestionFamily.DEPTH_ORDER: one_view.depth_order,
    QuestionFamily.OBJECT_DISTANCE: one_view.object_distance,
    QuestionFamily.CAMERA_DISTANCE: one_view.camera_distance,
    QuestionFamily.RELATIVE_POSITION: one_view.relative_position,
    QuestionFamily.VIEWPOINT_POSITION: several_views.viewpoint_position,
    QuestionFamily.SIZE_COMPARISON: one_view.size_comparison,
    QuestionFamily.COUNTING: several_views.counting,
    QuestionFamily.WHICH_VIEW: several_views.which_view,
    QuestionFamily.CORRESPONDENCE: several_views.correspondence,
    QuestionFamily.CAMERA_TRANSLATION: camera_motion.camera_translation,
    QuestionFamily.CAMERA_ROTATION: camera_motion.camera_rotation,
    QuestionFamily.CROSS_VIEW_DISTANCE: several_views.cross_view_distance,
    QuestionFamily.CROSS_VIEW_POSITION: several_views.cross_view_position,
}
"""The function behind each family; None means that the sample offers no such question."""

_QUESTION_STREAM = 1_000_000
_ROUNDS = 4


def make_questions(
    sample: SceneSample,
    count: int,
    *,
    families: Sequence[QuestionFamily] = tuple(QuestionFamily),
    stream: int = 0,
) -> tuple[Question, ...]:
    """Asks questions about a sample; the same sample and stream give the same questions.

    Args:
        sample: the rendered views.
        count: questions wanted.
        families: what may be asked; each gets its turn in random order, so that common families do not crowd
            out rare ones.
        stream: number of the random stream; another one gives other questions.

    Returns:
        At most `count` different questions: fewer where the views offer no more.

    Raises:
        InputError: if no question or no family is asked for.
    """
    if count < 1 or not families:
        raise InputError(
            f"Expected at least one question of at least one family, got {count} of {len(families)}."
        )
    seen = Observations(sample)
    draws = Draws(sample.room.seed, _QUESTION_STREAM + stream)
    questions: dict[str, Question] = {}
    for _ in range(_ROUNDS):
        for family in draws.shuffled(families):
            question = MAKERS[family](seen, draws)
            if question is not None:
                questions.setdefault(question.text, question)
            if len(questions) == count:
                return tuple(questions.values())
    return tuple(questions.values())
