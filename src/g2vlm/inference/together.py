"""Several small scenes in one pass: views of many scenes fill the processor better than those of one."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from g2vlm.inference.prompts import PromptBuilder
from g2vlm.model.config import ViewAttention
from g2vlm.model.network import G2VLM, GeometryPrediction, Photographs, Wants


def grouped_by_size(sizes: Sequence[tuple[int, ...]], view_budget: int) -> list[tuple[int, ...]]:
    """Which scenes go together: those of equal views, height and width, as many as the budget holds.

    Args:
        sizes: (views, ...) of each scene.
        view_budget: most views in one pass; a larger scene goes by itself.

    Returns:
        Indices of the scenes of each pass, every scene once; passes in the order of their first scenes.
    """
    waiting: dict[tuple[int, ...], list[int]] = {}
    passes: list[tuple[int, ...]] = []
    for index, size in enumerate(sizes):
        group = waiting.setdefault(size, [])
        group.append(index)
        if (len(group) + 1) * size[0] > view_budget:
            passes.append(tuple(waiting.pop(size)))
    passes += map(tuple, waiting.values())
    return sorted(passes, key=min)


@torch.inference_mode()
def reconstruct_together(
    network: G2VLM,
    prompts: PromptBuilder,
    view_attention: ViewAttention,
    images: Sequence[Float[Tensor, "views 3 height width"]],
) -> list[GeometryPrediction]:
    """Geometry of scenes of one size from one pass, each as a batch of one.

    Scenes do not see each other. Whether their numbers equal those of a pass of their own bit for bit depends
    on how the processor's matrix products treat more rows; `are_equal` compares.

    Args:
        network: with the geometry heads.
        prompts: of its tokenizer.
        view_attention: whether views see all views or only earlier ones.
        images: RGB in [0, 1] of each scene, all of one shape.
    """
    inputs = prompts.reconstruction(images[0], view_attention).inputs
    if len(images) > 1:
        pixels = torch.stack([scene.to(prompts.device) for scene in images])
        ids = inputs.token_ids.expand(len(images), -1)
        inputs = replace(inputs, token_ids=ids, photographs=Photographs(pixels))
    prediction = network(inputs, Wants(geometry=True)).geometry
    assert prediction is not None
    return [_row(prediction, number) for number in range(len(images))]


def are_equal(first: GeometryPrediction, second: GeometryPrediction) -> bool:
    """Whether two predictions agree bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(_tensors(first), _tensors(second), strict=True))


def _row(prediction: GeometryPrediction, number: int) -> GeometryPrediction:
    def own(whole: Tensor | None) -> Tensor | None:
        return None if whole is None else whole[number, None]

    return GeometryPrediction(
        prediction.points_camera[number, None],
        prediction.T_world_camera[number, None],
        own(prediction.points_global),
        own(prediction.confidence_logits),
    )


def _tensors(prediction: GeometryPrediction) -> Iterator[Tensor]:
    for field in fields(prediction):
        if (whole := getattr(prediction, field.name)) is not None:
            yield whole
