"""Rooms of the synthetic world that no model was trained on, rendered at the model's own resolution."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from g2vlm.data.questions.everyday import missing_question
from g2vlm.data.questions.making import make_questions
from g2vlm.data.questions.markers import draw_markers
from g2vlm.data.questions.observations import Observations
from g2vlm.data.questions.phrasing.rephrasing import Phrasing, rephrased
from g2vlm.data.questions.question import REASONING_REQUEST, AnswerKind, Marker, Question
from g2vlm.data.samples import SceneSample
from g2vlm.data.splits import Split
from g2vlm.data.synthetic import ViewShape, render_sample
from g2vlm.data.world.config import World
from g2vlm.data.world.draws import Draws
from g2vlm.errors import InputError
from g2vlm.evaluation.geometry import GeometryOptions, SceneTruth
from g2vlm.evaluation.trials import Item, ItemGroup, Trial
from g2vlm.inputs.geometric import canvas_size

VERSION = 2
_PHRASING_STREAM, _MISSING_STREAM = 4_000_000, 5_000_000


class Way(Enum):
    """A way to ask the same questions, beside the one that the benchmark is set to."""

    PLAIN = "plain"
    """The benchmark's own words, without the request to reason."""
    HELD_OUT = "held_out"
    """Words that no training uses, with the request to reason."""
    HELD_OUT_PLAIN = "held_out_plain"
    """Words that no training uses, without the request: what somebody types who has not read the manual."""

    @property
    def phrasing(self) -> Phrasing:
        """In whose words."""
        return Phrasing.STANDARD if self is Way.PLAIN else Phrasing.HELD_OUT

    @property
    def reasoned(self) -> bool:
        """Whether what was measured is asked for too."""
        return self is Way.HELD_OUT


RENDER_ASPECT = (4, 3)
"""Width and height of the photos, before the height is rounded to whole patches."""


@dataclass(frozen=True)
class SyntheticBenchmark:
    """Scenes by seed: the same everywhere.

    Raises:
        InputError: no scene, no view, or (unless allowed) seeds that models are trained on.
    """

    width: int
    """Pixels; the model's own image width."""
    patch: int
    """Side of the model's patches in pixels; the height is rounded to whole ones."""
    first_seed: int = Split.TEST.value[0]
    """Seed of the first scene; the others follow."""
    num_scenes: int = 200
    num_views: int = 4
    num_questions: int = 8
    """Questions asked about each scene at most; 0 asks none."""
    num_missing: int = 0
    """Questions about each scene that speak of something that is not there, or of an unknown word."""
    reasoned: bool = True
    """Ask for what was measured before the answer: what the reasoning answers of the training do."""
    phrasing: Phrasing = Phrasing.STANDARD
    """In whose words the questions are asked; held-out words say what unread sentences cost."""
    world: World = World.FULL
    other_ways: tuple[Way, ...] = ()
    """Ask every question also in these ways, with full sight."""
    allow_train_seeds: bool = False
    """Measure on rooms that models are trained on, for example to look at overfitting."""
    geometry_options: GeometryOptions = field(default_factory=GeometryOptions)

    def __post_init__(self) -> None:
        if self.num_scenes < 1 or self.num_views < 1 or self.num_questions < 0 or self.first_seed < 0:
            raise InputError(
                f"Expected at least one scene of one view and seeds from 0, got {self.num_scenes} scenes of "
                f"{self.num_views} views from seed {self.first_seed}."
            )
        seeds, trained = range(self.first_seed, self.first_seed + self.num_scenes), Split.TRAIN.seeds
        if not self.allow_train_seeds and seeds[-1] >= trained[0] and seeds[0] <= trained[-1]:
            raise InputError(
                f"Expected seeds that no model is trained on, got {seeds[0]} to {seeds[-1]}, but training "
                f"draws from {trained[0]} to {trained[-1]}: choose test seeds (from {Split.TEST.value[0]}), "
                "or allow training seeds."
            )

    @property
    def task(self) -> str:
        """Name and version."""
        return f"synthetic-{VERSION}"

    @property
    def settings(self) -> dict[str, Any]:
        """All choices that the figures depend on."""
        width, height = self.size
        return {
            "first_seed": self.first_seed,
            "num_scenes": self.num_scenes,
            "num_views": self.num_views,
            "num_questions": self.num_questions,
            "reasoned": self.reasoned,
            **({"num_missing": self.num_missing} if self.num_missing else {}),
            **({} if self.phrasing is Phrasing.STANDARD else {"phrasing": self.phrasing.value}),
            **({"other_ways": [way.value for way in self.other_ways]} if self.other_ways else {}),
            "world": self.world.value,
            "width": width,
            "height": height,
            "geometry_options": self.geometry_options.to_json(),
        }

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the photos, which the model takes as they are."""
        return canvas_size(RENDER_ASPECT, width=self.width, patch=self.patch)

    def scenes(self) -> Sequence[str]:
        """The seeds, as text."""
        return [str(self.first_seed + k) for k in range(self.num_scenes)]

    def load(self, scene: str) -> Trial:
        """Render one room and ask about it."""
        width, height = self.size
        sample = render_sample(self.world.config, int(scene), ViewShape(self.num_views, height, width))
        asked = () if self.num_missing == 0 else (self._missing(sample),)
        others = {way.value: self._groups(sample, way.phrasing, way.reasoned) for way in self.other_ways}
        groups = (*asked, *self._groups(sample, self.phrasing, self.reasoned))
        return Trial(_photos(sample.images), truth_of(sample), groups, others)

    def _groups(self, sample: SceneSample, phrasing: Phrasing, reasoned: bool) -> tuple[ItemGroup, ...]:
        groups: list[ItemGroup] = []
        if self.num_questions == 0:
            return ()
        by_pictures: dict[tuple[tuple[int, ...], tuple[Marker, ...]], list[Question]] = {}
        draws = Draws(sample.room.seed, _PHRASING_STREAM)
        for made in make_questions(sample, self.num_questions):
            question = rephrased(made, phrasing, draws)
            by_pictures.setdefault((question.views, question.markers), []).append(question)
        for (views, markers), questions in by_pictures.items():
            marked = draw_markers(sample.images, markers)
            groups.append(
                ItemGroup(
                    _photos(marked[list(views)]),
                    tuple(item_of(question, reasoned=reasoned) for question in questions),
                )
            )
        return tuple(groups)

    def _missing(self, sample: SceneSample) -> ItemGroup:
        """Questions about what the views do not show."""
        seen, draws = Observations(sample), Draws(sample.room.seed, _MISSING_STREAM)
        held_out = self.phrasing is Phrasing.HELD_OUT
        asked = [missing_question(seen, draws, held_out=held_out) for _ in range(self.num_missing)]
        items = [
            Item(family="missing", text=question.text, truth=question.answer, is_choice=False, missing=word)
            for question, word in asked
        ]
        return ItemGroup(_photos(sample.images), tuple(items))


def truth_of(sample: SceneSample) -> SceneTruth:
    """The exact geometry of a rendered sample; its size is the diagonal of the room."""
    size = float(np.linalg.norm(sample.room.size_m))
    return SceneTruth(sample.depth, sample.valid, sample.T_world_camera, sample.K, size)


def item_of(question: Question, *, reasoned: bool = False) -> Item:
    """A question of the synthetic world as an item to be judged, with or without a request to reason."""
    return Item(
        family=question.family.value,
        text=question.text + (REASONING_REQUEST if reasoned else ""),
        truth=question.answer,
        is_choice=question.kind is AnswerKind.CHOICE,
        choices=question.choices,
        needs_multiple_views=question.needs_multiple_views,
    )


def _photos(images: Float[Tensor, "views 3 height width"]) -> tuple[Image.Image, ...]:
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return tuple(Image.fromarray(view) for view in pixels)
