"""Synthetic questions written to a folder are read back, markers and all."""

from pathlib import Path

import numpy as np
from PIL import Image

from g2vlm.data.question_export import export_questions
from g2vlm.data.question_file import read_question_file
from g2vlm.data.questions.making import make_questions
from g2vlm.data.synthetic import ViewShape, render_sample
from g2vlm.data.world.config import easy_world


def test_exported_questions_are_read_back(tmp_path: Path) -> None:
    shape = ViewShape(2, 36, 48)
    path = export_questions(tmp_path / "set", easy_world(), range(2), shape, per_scene=5)
    conversations = read_question_file(path)
    sample = render_sample(easy_world(), 0, shape)
    questions = make_questions(sample, 5)
    for conversation, question in zip(conversations, questions, strict=False):
        assert conversation.turns[0].question == question.text
        assert conversation.turns[0].answer == question.answer
        assert len(conversation.images) == len(question.views)
        marked = {marker.view: marker for marker in question.markers}
        for file, view in zip(conversation.images, question.views, strict=True):
            picture = np.asarray(Image.open(file)) / 255
            plain = sample.images[view].permute(1, 2, 0).numpy()
            changed = np.abs(picture - plain).max() > 0.01
            assert changed == (view in marked)
    assert len(conversations) > len(questions)
