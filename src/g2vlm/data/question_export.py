"""Synthetic questions as a question file with its images: an example of the format, data for fine-tuning."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from g2vlm.data.question_file import Conversation, Turn, write_question_file
from g2vlm.data.questions.making import make_questions
from g2vlm.data.questions.markers import draw_markers
from g2vlm.data.questions.question import Question
from g2vlm.data.samples import SceneSample
from g2vlm.data.synthetic import ViewShape, render_sample
from g2vlm.data.world.config import WorldConfig


def export_questions(
    folder: Path, config: WorldConfig, seeds: Sequence[int], shape: ViewShape, per_scene: int = 4
) -> Path:
    """Renders scenes and writes questions about them.

    Args:
        folder: receives `questions.jsonl` and the folder `images`; made if it is missing.
        config: the ranges that scenes are drawn from.
        seeds: one scene each.
        shape: views per scene and their size.
        per_scene: questions per scene; fewer where a scene offers no more.

    Returns:
        Path of the question file, in the layout of `read_question_file`.
    """
    images = folder.absolute() / "images"
    images.mkdir(parents=True, exist_ok=True)
    conversations = []
    for seed in seeds:
        sample = render_sample(config, seed, shape)
        for number, question in enumerate(make_questions(sample, per_scene)):
            name = f"{seed}_{number}"
            conversations.append(_conversation(images, name, sample, question))
    path = folder / "questions.jsonl"
    write_question_file(path, conversations)
    return path


def _conversation(images: Path, name: str, sample: SceneSample, question: Question) -> Conversation:
    views = draw_markers(sample.images, question.markers)
    paths = []
    for place, view in enumerate(question.views, start=1):
        paths.append(images / f"{name}_{place}.png")
        _picture(views[view]).save(paths[-1])
    return Conversation(name, tuple(paths), (Turn(question.text, question.answer),))


def _picture(view: Float[Tensor, "3 height width"]) -> Image.Image:
    pixels = (view.permute(1, 2, 0) * 255).round().to(torch.uint8).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(pixels))
