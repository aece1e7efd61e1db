"""Questions about rendered rooms, grouped so that one pass over the pictures serves several of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from g2vlm.data.questions.making import make_questions
from g2vlm.data.questions.markers import draw_markers
from g2vlm.data.questions.question import Marker, Question, QuestionFamily
from g2vlm.data.samples import SceneSample
from g2vlm.data.world.layout import Room
from g2vlm.training.pictures import Pictures
from g2vlm.training.sequences import QuestionAnswer

REASONING_REQUEST = " Think step by step."
"""Added to questions whose answer states what was measured before it concludes."""

ASKED_OF_ONE_VIEW = (
    QuestionFamily.POINT_DEPTH,
    QuestionFamily.DEPTH_ORDER,
    QuestionFamily.OBJECT_DISTANCE,
    QuestionFamily.CAMERA_DISTANCE,
    QuestionFamily.RELATIVE_POSITION,
    QuestionFamily.SIZE_COMPARISON,
    QuestionFamily.VIEWPOINT_POSITION,
    QuestionFamily.COUNTING,
)
ASKED_OF_TWO_VIEWS = (
    QuestionFamily.WHICH_VIEW,
    QuestionFamily.CORRESPONDENCE,
    QuestionFamily.CAMERA_TRANSLATION,
    QuestionFamily.CAMERA_ROTATION,
    QuestionFamily.CROSS_VIEW_DISTANCE,
    QuestionFamily.CROSS_VIEW_POSITION,
    QuestionFamily.VIEWPOINT_POSITION,
    QuestionFamily.COUNTING,
)
ASKED_OF_MORE_VIEWS = (
    QuestionFamily.WHICH_VIEW,
    QuestionFamily.CROSS_VIEW_DISTANCE,
    QuestionFamily.CROSS_VIEW_POSITION,
    QuestionFamily.VIEWPOINT_POSITION,
    QuestionFamily.COUNTING,
)
_TRIES_PER_QUESTION = 2


@dataclass(frozen=True, eq=False)
class AskedPictures:
    """Pictures with what is drawn onto them, and the questions about each sample."""

    marked: Float[Tensor, "batch views 3 height width"]
    dialogues: tuple[tuple[QuestionAnswer, ...], ...]


def ask_about(
    pictures: Pictures,
    images: Float[Tensor, "batch views 3 height width"],
    rooms: Sequence[Room],
    asked: tuple[int, float],
    rng: np.random.Generator,
) -> AskedPictures:
    """Questions that take exactly the views of each sample.

    All questions of a sample are asked about the same pictures, so at most one of them has markers.

    Args:
        pictures: with the truth.
        images: the pictures as the network sees them, without markers.
        rooms: the room of each sample.
        asked: questions wanted of each sample, and the share of answers with reasoning.
        rng: source of the draws.
    """
    count, reasoning_share = asked
    num_views = images.shape[1]
    families = {1: ASKED_OF_ONE_VIEW, 2: ASKED_OF_TWO_VIEWS}.get(num_views, ASKED_OF_MORE_VIEWS)
    marked, dialogues = [], []
    for i, room in enumerate(rooms):
        sample = _sample(pictures, i, room)
        stream = int(rng.integers(1, 2**30))
        made = make_questions(sample, count * _TRIES_PER_QUESTION, families=families, stream=stream)
        chosen = _compatible(made, num_views, count)
        markers: tuple[Marker, ...] = next((q.markers for q in chosen if q.markers), ())
        marked.append(draw_markers(images[i], markers))
        dialogues.append(tuple(_pair(q, rng.random() < reasoning_share) for q in chosen))
    return AskedPictures(torch.stack(marked), tuple(dialogues))


def _compatible(questions: Sequence[Question], num_views: int, count: int) -> list[Question]:
    """Questions that show all views in order; at most one with markers."""
    chosen: list[Question] = []
    for question in questions:
        if question.views != tuple(range(num_views)):
            continue
        if question.markers and any(other.markers for other in chosen):
            continue
        chosen.append(question)
    return chosen[:count]


def _pair(question: Question, reasoned: bool) -> QuestionAnswer:
    if reasoned:
        return QuestionAnswer(question.text + REASONING_REQUEST, question.reasoned_answer)
    return QuestionAnswer(question.text, question.answer)


def _sample(pictures: Pictures, i: int, room: Room) -> SceneSample:
    depth = pictures.depth[i]
    return SceneSample(
        images=pictures.images[i],
        points_world=pictures.points_world[i],
        depth=depth,
        valid=torch.ones_like(depth, dtype=torch.bool),
        T_world_camera=pictures.T_world_camera[i],
        K=pictures.K[i],
        is_metric=True,
        # No question looks at normals, so stored pictures do without them.
        normals=torch.zeros(*depth.shape, 3),
        instance=pictures.instance[i],
        room=room,
    )
