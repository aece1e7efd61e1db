"""Questions about rendered rooms, grouped so that one pass over the pictures serves several of them."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from g2vlm.data.questions.everyday import everyday_question
from g2vlm.data.questions.making import make_questions
from g2vlm.data.questions.markers import draw_markers
from g2vlm.data.questions.observations import Observations
from g2vlm.data.questions.phrasing.rephrasing import Phrasing, ReasoningWish, rephrased, with_wish
from g2vlm.data.questions.question import (
    LETTERS,
    REASONING_REQUEST,
    Marker,
    Question,
    QuestionFamily,
    Reference,
    renumbered,
)
from g2vlm.data.samples import SceneSample
from g2vlm.data.world.draws import Draws
from g2vlm.data.world.layout import Room
from g2vlm.training.guidance.pointing import Pointer, Quote, shown_at
from g2vlm.training.sources.pictures import Pictures
from g2vlm.training.sources.sequences import QuestionAnswer

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
_TRIES_PER_QUESTION = 3
_EVERYDAY_STREAM = 2_000_000_000
_FREE_STREAM = 3_000_000_000
_WISHES = (ReasoningWish.UNSAID, ReasoningWish.UNSAID, ReasoningWish.ASKED, ReasoningWish.DECLINED)
_APART_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class AskedPictures:
    """Pictures with what is drawn onto them, and the questions about each sample."""

    marked: Float[Tensor, "batch views 3 height width"]
    dialogues: tuple[tuple[QuestionAnswer, ...], ...]


@dataclass(frozen=True)
class Asked:
    """What is asked about a sample."""

    count: int
    """Questions of the families."""
    reasoning_share: float
    """Share of their answers that come with reasoning."""
    everyday_share: float = 0.0
    """Share of samples with an everyday question besides."""
    free_share: float = 0.0
    """Share of the questions of the families that are asked in free words, most without a wish to reason."""


@dataclass(frozen=True)
class Grids:
    """Rows and columns of tokens into which each expert cuts a view."""

    geometric: tuple[int, int]
    semantic: tuple[int, int]


def ask_about(
    pictures: Pictures,
    images: Float[Tensor, "batch views 3 height width"],
    rooms: Sequence[Room],
    asked: Asked,
    rng: np.random.Generator,
    grids: Grids | None = None,
) -> AskedPictures:
    """Questions that take exactly the views of each sample.

    All questions of a sample are asked about the same pictures, so they share the five colours of markers.

    Args:
        pictures: with the truth.
        images: the pictures as the network sees them, without markers.
        rooms: the room of each sample.
        asked: how many questions of each sample, and of what kinds.
        rng: source of the draws.
        grids: of the image tokens that words should look at; None leaves that out.
    """
    num_views = images.shape[1]
    families = {1: ASKED_OF_ONE_VIEW, 2: ASKED_OF_TWO_VIEWS}.get(num_views, ASKED_OF_MORE_VIEWS)
    marked, dialogues = [], []
    for i, room in enumerate(rooms):
        sample = _sample(pictures, i, room)
        stream = int(rng.integers(1, 2**30))
        made = make_questions(sample, asked.count * _TRIES_PER_QUESTION, families=families, stream=stream)
        chosen = _compatible(made, (num_views, images.shape[-1]), asked.count)
        marked.append(draw_markers(images[i], [marker for q in chosen for marker in q.markers]))
        instance = sample.instance.numpy()
        pairs = [_pair(*_worded(q, asked, rng), instance, grids) for q in chosen]
        if rng.random() < asked.everyday_share:
            everyday = everyday_question(Observations(sample), Draws(room.seed, _EVERYDAY_STREAM + stream))
            pairs += [] if everyday is None else [_pair(everyday, everyday.text, False, instance, grids)]
        dialogues.append(tuple(pairs))
    return AskedPictures(torch.stack(marked), tuple(dialogues))


def _compatible(questions: Sequence[Question], shape: tuple[int, int], count: int) -> list[Question]:
    """Questions that show all views in order, whose markers differ in colour and do not touch.

    Those with markers come first: there are few colours, so other questions would crowd them out.
    `shape` is the number of views and the width of the pictures.
    """
    num_views, width = shape
    chosen: list[Question] = []
    markers: list[Marker] = []
    for asked in sorted(questions, key=lambda question: not question.markers):
        # Which view shows something may be asked in any order; questions about pairs measure from view 1.
        question = renumbered(asked) if asked.family is QuestionFamily.WHICH_VIEW else asked
        if question.views != tuple(range(num_views)):
            continue
        if any(_clash(marker, other, width) for marker in question.markers for other in markers):
            continue
        chosen.append(question)
        markers += question.markers
    return chosen[:count]


def _clash(marker: Marker, other: Marker, width: int) -> bool:
    distance = math.dist((marker.u, marker.v), (other.u, other.v))
    near = marker.view == other.view and distance < _APART_SHARE * width
    return near or marker.colour is other.colour


def _worded(question: Question, asked: Asked, rng: np.random.Generator) -> tuple[Question, str, bool]:
    """A question in the words it is asked in, its whole text, and whether its answer states measurements.

    In the benchmark's own words, reasoning is given where it is asked for. In free words it is also given
    where nothing is said about it, so that a model need not be asked to reason.
    """
    if rng.random() >= asked.free_share:
        reasoned = rng.random() < asked.reasoning_share
        return question, question.text + (REASONING_REQUEST if reasoned else ""), reasoned
    draws = Draws(int(rng.integers(2**31)), _FREE_STREAM)
    free = rephrased(question, Phrasing.FREE, draws)
    wish = draws.choice(_WISHES)
    return free, with_wish(free.text, wish, draws), wish is not ReasoningWish.DECLINED


def _pair(
    question: Question, text: str, reasoned: bool, instance: np.ndarray, grids: Grids | None
) -> QuestionAnswer:
    answer = question.reasoned_answer if reasoned else question.given_answer
    pointers: list[Pointer] = []
    for reference in question.references if grids is not None else ():
        assert grids is not None
        shown = [shown_at(reference.places, instance, grid) for grid in (grids.geometric, grids.semantic)]
        if not (shown[0].any() and shown[1].any()):
            continue
        for in_answer, words in ((False, text), (True, answer)):
            pointers += [
                Pointer(start, end, in_answer, shown[0], shown[1])
                for start, end in _looking(reference, words)
            ]
    quotes = tuple(_quotes(question, text, answer)) if grids is not None else ()
    return QuestionAnswer(text, answer, tuple(pointers), quotes)


def _quotes(question: Question, text: str, answer: str) -> Iterator[Quote]:
    """The last words of an answer repeat its choice; the conclusion before them, what decides it."""
    if not question.choices:
        return
    place = LETTERS.index(question.answer)
    choice = question.choices[place]
    source = _listed_at(question, place, text)
    given = question.given_answer
    if source is not None:
        yield Quote(len(answer) - len(given), len(answer), source)
    conclusion = f"So it is {choice}."
    if conclusion not in answer:
        return
    end = answer.index(conclusion) + len(conclusion) - 1
    if question.decides:
        start = answer.index(question.decides)
        yield Quote(end - len(choice), end, (start, start + len(question.decides)), in_answer=True)
    elif source is not None:
        yield Quote(end - len(choice), end, source)


def _listed_at(question: Question, place: int, text: str) -> tuple[int, int] | None:
    """Where a text lists a choice; None where it leaves the choices unsaid."""
    listed = question.listed[place] if question.listed else ""
    start = text.rfind(listed) if listed else -1
    return None if start < 0 else (start, start + len(listed))


def _looking(reference: Reference, words: str) -> Iterator[tuple[int, int]]:
    """Ranges of characters whose tokens look at what a reference speaks of.

    They are the end of its name, and all of its value but the last character, which predicts no measurement.
    """
    name, value = re.escape(reference.name), re.escape(reference.value)
    for found in re.finditer(rf"\b{name}(?P<value>{value})?(?!\w)", words):
        end_of_name = found.start() + len(reference.name)
        stated = found["value"] or ""
        yield end_of_name - 1, end_of_name + max(0, len(stated) - 1)


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
