"""A checkpoint of this package, asked as users ask it."""

from collections.abc import Sequence
from dataclasses import dataclass

from g2vlm.evaluation.asking import Examiner, Sight
from g2vlm.evaluation.prediction import Prediction
from g2vlm.evaluation.predictors.interface import Questions, Views
from g2vlm.pipeline import Model


@dataclass(frozen=True)
class OwnModel:
    """Reconstructs and answers."""

    model: Model
    max_new_tokens: int = 160
    """Limit on the passes of an answer."""

    def reconstruct(self, views: Views) -> Prediction:
        """The scene of the photos; intrinsics are the model's own."""
        return Prediction.of_views(self.model.reconstruct(list(views.photos)).views)

    def answer(self, asked: Questions) -> Sequence[str]:
        """Greedy answers with full sight."""
        return Examiner(self.model, self.max_new_tokens).ask(asked.photos, asked.texts, Sight.FULL)
