"""Whether pictures reach the encoders as these were trained, told from the network itself.

Two ways: what arrives at the first layer for plain colours, and whether any other preparation would suit the
weights better, which it does where a conversion of the checkpoint has exchanged channels or normalisations.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from g2vlm.checkpoints.loading import CHAT_PARTS
from g2vlm.evaluation.checkup.answering import surprises
from g2vlm.evaluation.checkup.examples import Examples
from g2vlm.evaluation.checkup.geometry import measure_geometry
from g2vlm.evaluation.checkup.looking import Looker, Pixels
from g2vlm.evaluation.checkup.rows import Group, Row
from g2vlm.inputs.geometric import prepare_geometric
from g2vlm.inputs.photo import Photo
from g2vlm.inputs.semantic import CLIP_MEAN, CLIP_STD, SemanticPreparation, prepare_semantic

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""With which DINOv2 was trained; said here again, because what the network does is compared with it."""
BETTER = 0.97
"""Share of the error as prepared below which another preparation counts as the right one."""
_TOLERANCE = 1e-2
"""Of mean and deviation, for inputs that are rounded to bfloat16."""
_SIDE = 56
_PLAIN = ((0, 0, 0), (255, 255, 255), (255, 0, 0))
"""Black and white tell mean and deviation, red tells the order of the channels."""


@dataclass(frozen=True)
class _Normalisation:
    mean: tuple[float, ...]
    std: tuple[float, ...]
    red_first: bool

    def __str__(self) -> str:
        mean, std = (", ".join(f"{value:.3f}" for value in values) for values in (self.mean, self.std))
        return f"mean {mean}; deviation {std}; {'RGB' if self.red_first else 'not RGB'}"

    def equals(self, mean: Sequence[float], std: Sequence[float]) -> bool:
        return self.red_first and np.allclose([*self.mean, *self.std], [*mean, *std], atol=_TOLERANCE)


def arriving_rows(look: Looker) -> Iterator[Row]:
    """Compare what arrives at the first layers for black, white and red with what they were trained with."""
    for name, measure, mean, std in (
        ("geometric encoder (DINOv2)", _geometric_arrival, IMAGENET_MEAN, IMAGENET_STD),
        ("semantic encoder (Qwen2-VL)", _semantic_arrival, CLIP_MEAN, CLIP_STD),
    ):
        found = measure(look)
        yield Row(
            Group.PICTURES,
            f"what arrives at the {name}",
            found.equals(mean, std),
            str(found),
            str(_Normalisation(tuple(mean), tuple(std), red_first=True)),
            "the numbers of the other encoder, 0.5, or none; channels exchanged",
        )


def _geometric_arrival(look: Looker) -> _Normalisation:
    encoder, config = look.model.network.geometric_encoder, look.model.config
    assert isinstance(encoder, nn.Module)
    patch = config.geometric_encoder.patch_size
    sizes = [prepare_geometric([_plain(colour)], width=patch, patch=patch) for colour in _PLAIN]
    with _caught(encoder.get_submodule("patch_embedding")) as inputs, torch.inference_mode():
        for images in sizes:
            encoder(images.pixels[None].to(look.model.placement.device), None)
    return _normalisation(inputs)


def _semantic_arrival(look: Looker) -> _Normalisation:
    look.model.load_parts(CHAT_PARTS)
    encoder = look.model.network.semantic_encoder
    assert isinstance(encoder, nn.Module)
    with _caught(encoder.get_submodule("patch_embedding")) as inputs, torch.inference_mode():
        # As small as the preparation allows: what arrives at the first layer does not depend on the size.
        small = replace(look.preparation, side=_SIDE)
        for colour in _PLAIN:
            images = prepare_semantic([_plain(colour)], small)
            patches = images.patches.to(look.model.placement.device)
            encoder(patches, images.rows, images.cols)
    return _normalisation(inputs)


def _plain(colour: tuple[int, int, int]) -> Photo:
    return Photo(Image.new("RGB", (_SIDE, _SIDE), colour), "plain")


@contextmanager
def _caught(layer: nn.Module) -> Iterator[list[Tensor]]:
    """The inputs of a layer while the block runs."""
    inputs: list[Tensor] = []

    def note(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs.append(arguments[0].detach().float().cpu())

    handle = layer.register_forward_pre_hook(note)
    try:
        yield inputs
    finally:
        handle.remove()


def _normalisation(inputs: list[Tensor]) -> _Normalisation:
    """Mean and deviation from the patches of black, white and red; features begin with the channel."""
    black, white, red = (
        patches.reshape(-1, 3, patches.shape[-1] // 3).mean(dim=(0, 2)).double() for patches in inputs
    )
    std = 1 / (white - black)
    mean = -black * std
    return _Normalisation(
        tuple(mean.tolist()), tuple(std.tolist()), torch.allclose(red, torch.stack([white[0], *black[1:]]))
    )


def remedy_rows(look: Looker, examples: Examples) -> Iterator[Row]:
    """Try other preparations on the first photo: with healthy weights, none is better than the right one."""
    errors = {
        name: measure_geometry(look.scene(change=change, views=1), examples.truth).abs_rel
        for name, change in _geometric_remedies().items()
    }
    yield _remedy_row("depth error of one photo", errors)
    unlikely = {
        name: float(surprises(look, look.look(photos, preparation, views=1), examples).mean())
        for name, (photos, preparation) in _semantic_remedies(look).items()
    }
    yield _remedy_row("how unlikely true answers are", unlikely)


def _remedy_row(subject: str, errors: dict[str, float]) -> Row:
    as_is = errors["as prepared"]
    best = min(errors, key=lambda name: errors[name])
    return Row(
        Group.PICTURES,
        subject,
        bool(np.isfinite(as_is)) and errors[best] >= BETTER * as_is,
        ", ".join(f"{name} {error:.3f}" for name, error in errors.items()),
        "lowest as prepared (or within 3 %)",
        "lower with exchanged channels or another normalisation",
    )


def _geometric_remedies() -> dict[str, Callable[[Pixels], Pixels] | None]:
    """Each makes up for a fault: fed with it, a network with that fault sees what it was trained with."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return {
        "as prepared": None,
        "BGR": lambda pixels: pixels.flip(1),
        "normalised twice": lambda pixels: (pixels - mean) / std,
        "normalised by 0.5": lambda pixels: (pixels * 2 - 1) * std + mean,
        "not normalised": lambda pixels: pixels * std + mean,
    }


def _semantic_remedies(look: Looker) -> dict[str, tuple[Sequence[Photo] | None, SemanticPreparation | None]]:
    p = look.preparation
    swapped = [Photo(_swapped(photo.image), photo.name) for photo in look.photos]
    return {
        "as prepared": (None, None),
        "BGR": (swapped, None),
        "normalised by 0.5": (None, replace(p, mean=(0.5,) * 3, std=(0.5,) * 3)),
        "not normalised": (None, replace(p, mean=(0.0,) * 3, std=(1.0,) * 3)),
    }


def _swapped(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(np.asarray(image)[..., ::-1]))
