"""Guided attention of words: what a word speaks of is where one head of it learns to look.

"The red chair is 2.4 m ahead": as long as no word finds the chair in the pictures, nothing can be said about
it, and only a bare answer, right or wrong, tells a network so. The synthetic world knows which pixels are the
chair. In some layers, one head of the semantic expert is trained to look at the geometric tokens that show
what a word speaks of, another head at the semantic image tokens. Nothing is added to the network, and nothing
of this runs after training.

Answers also repeat words that stand before: the letter or the text of a choice, or of several things that
were measured the nearest one. Which one is a matter of reading, not of seeing, and as slow to be found; a
third head learns to look at the words that are repeated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from g2vlm.data.questions.question import SeenAt
from g2vlm.model.mixture import Projections

_ENOUGH = 0.3


@dataclass(frozen=True)
class PointingGuide:
    """Which attention of words is guided, and how strongly."""

    weight: float = 0.2
    """Factor of the cross-entropy (nats) beside the other losses."""
    layers: tuple[int, ...] = (2, 4)
    """Layers of the mixture, from 0. The last head of their semantic expert looks at geometric tokens, the
    first one at semantic image tokens; in the last of these layers, the middle one at repeated words."""


@dataclass(frozen=True, eq=False)
class Pointer:
    """Words of a question or of its answer, and the image tokens that show what they speak of."""

    start: int
    """First character whose token looks there."""
    end: int
    """Behind the last such character."""
    in_answer: bool
    """Whether characters are counted in the answer instead of the question."""
    geometric: Bool[ndarray, " patches"]
    """Of the geometric tokens of all views, those that show it."""
    semantic: Bool[ndarray, " tokens"]
    """Of the semantic image tokens of all views."""


@dataclass(frozen=True)
class Quote:
    """Words of an answer that repeat words of its question, or earlier words of its own."""

    start: int
    """First character, in the answer."""
    end: int
    """Behind the last one."""
    source: tuple[int, int]
    """The range of characters that is repeated."""
    in_answer: bool = False
    """Whether that range is counted in the answer instead of the question."""


@dataclass(frozen=True, eq=False)
class QuoteTargets:
    """For some tokens of each sample, at which words of their question and answer they should look."""

    slots: Int[Tensor, "batch quotes"]
    """Places in the semantic stream, from 0; padded with 0."""
    question: Int[Tensor, "batch quotes"]
    """Where the question of that token begins."""
    source: Int[Tensor, "batch quotes 2"]
    """Where the words to look at begin and end; an empty range for padding."""

    def to(self, device: torch.device) -> "QuoteTargets":
        """The same on another device."""
        return QuoteTargets(*(t.to(device, non_blocking=True) for t in vars(self).values()))


@dataclass(frozen=True, eq=False)
class PointingTargets:
    """For some tokens of each sample, where they should look."""

    slots: Int[Tensor, "batch words"]
    """Places in the semantic stream, from 0; padded with 0."""
    geometric: Bool[Tensor, "batch words patches"]
    """Wanted geometric tokens; none for padding."""
    semantic: Bool[Tensor, "batch words tokens"]
    """Wanted semantic image tokens; none for padding."""
    image_slots: Int[Tensor, " tokens"]
    """Where semantic image tokens stand in the semantic stream."""
    num_before: int
    """Tokens of the semantic stream that all questions share."""
    quotes: QuoteTargets

    def to(self, device: torch.device) -> "PointingTargets":
        """The same on another device."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return PointingTargets(
            move(self.slots),
            move(self.geometric),
            move(self.semantic),
            move(self.image_slots),
            self.num_before,
            self.quotes.to(device),
        )


def shown_at(
    places: Sequence[SeenAt], instance: Int[ndarray, "views height width"], grid: tuple[int, int]
) -> Bool[ndarray, " tokens"]:
    """Image tokens that show some places.

    An object is shown by the tokens that it fills to a third, and by the one of each view that it fills most.

    Args:
        places: what is looked for.
        instance: which object each pixel shows.
        grid: rows and columns of tokens in each view; they need not divide its pixels.

    Returns:
        One value for each token of all views, view after view, in raster order.
    """
    views, height, width = instance.shape
    rows, columns = grid
    shown = np.zeros((views, rows, columns), dtype=bool)
    for place in places:
        view = shown[place.view]
        if place.pixel is not None:
            u, v = place.pixel
            view[v * rows // height, u * columns // width] = True
        elif place.instance is not None:
            share = _shares(instance[place.view] == place.instance, grid)
            if share.any():
                view |= share >= min(_ENOUGH, share.max())
        else:
            view[:] = True
    return shown.reshape(-1)


def _shares(mask: Bool[ndarray, "height width"], grid: tuple[int, int]) -> ndarray:
    """Share of each cell of a grid that a mask covers."""
    (height, width), (rows, columns) = mask.shape, grid
    row_of, column_of = np.arange(height) * rows // height, np.arange(width) * columns // width
    cell_of = row_of[:, None] * columns + column_of
    covered = np.bincount(cell_of.ravel(), weights=mask.ravel(), minlength=rows * columns)
    return (covered / np.bincount(cell_of.ravel(), minlength=rows * columns)).reshape(grid)


def pointing_loss(
    semantic: Mapping[int, Projections],
    geometric: Mapping[int, Projections],
    guide: PointingGuide,
    targets: PointingTargets,
) -> Float[Tensor, ""]:
    """Cross-entropy (nats): how little of a guided head's attention falls on what its word speaks of.

    Attention is counted over the image tokens in question and the prompt in front of the questions.

    Args:
        semantic: what the guided layers of the semantic expert projected, by layer.
        geometric: likewise of the geometric expert; without the layers where it saw no view.
        guide: which layers.
        targets: where words should look.

    Returns:
        Mean over guided words, layers and kinds of image tokens; zero, with zero gradients, without any.
    """
    terms = []
    prompt = torch.ones(targets.num_before, dtype=torch.bool, device=targets.slots.device)
    prompt[targets.image_slots] = False
    for layer in guide.layers:
        words = semantic[layer]
        before = [words.keys[:, :, : targets.num_before][:, :, chosen] for chosen in (prompt, ~prompt)]
        terms.append(_look(words, 0, targets.slots, (before[0], before[1]), targets.semantic))
        if layer in geometric:
            keys = geometric[layer].keys
            last = words.queries.shape[1] - 1
            terms.append(_look(words, last, targets.slots, (before[0], keys), targets.geometric))
    return torch.stack(terms).mean()


def quoting_loss(words: Projections, quotes: QuoteTargets) -> Float[Tensor, ""]:
    """Cross-entropy (nats): how little of the middle head's attention falls on words that come next.

    Attention is counted over the question and what of the answer stands before.

    Args:
        words: what a layer of the semantic expert projected.
        quotes: where tokens of answers should look.

    Returns:
        Mean over these tokens; zero, with zero gradients, without any.
    """
    head = words.queries.shape[1] // 2
    source = head * words.keys.shape[1] // words.queries.shape[1]
    with torch.autocast(device_type=quotes.slots.device.type, enabled=False):
        queries = _scaled_queries(words, head, quotes.slots)
        scores = queries @ words.keys[:, source].float().transpose(1, 2)
        place = torch.arange(scores.shape[-1], device=scores.device)
        seen = (place >= quotes.question[..., None]) & (place <= quotes.slots[..., None])
        wanted = (place >= quotes.source[..., :1]) & (place < quotes.source[..., 1:])
        counted = wanted.any(dim=-1)
        # As in `_look`.
        seen, wanted = (mask | ~counted[..., None] for mask in (seen, wanted))
        chosen = scores.masked_fill(~wanted, -torch.inf).logsumexp(dim=-1)
        loss = scores.masked_fill(~seen, -torch.inf).logsumexp(dim=-1) - chosen
        return torch.where(counted, loss, 0.0).sum() / counted.sum().clamp_min(1)


def _scaled_queries(
    words: Projections, head: int, slots: Int[Tensor, "batch words"]
) -> Float[Tensor, "batch words channels"]:
    """Queries of one head at some places, scaled as attention does, float32."""
    queries = words.queries[:, head].float() * words.queries.shape[-1] ** -0.5
    return queries.gather(1, slots[..., None].expand(-1, -1, queries.shape[-1]))


def _look(
    words: Projections, head: int, slots: Tensor, keys: tuple[Tensor, Tensor], wanted: Tensor
) -> Float[Tensor, ""]:
    """Mean of minus the log of the attention on wanted image keys, among prompt and image keys."""
    # Heads share keys in groups.
    source = head * words.keys.shape[1] // words.queries.shape[1]
    prompt, images = (key[:, source].float() for key in keys)
    with torch.autocast(device_type=slots.device.type, enabled=False):
        queries = _scaled_queries(words, head, slots)
        on_images = queries @ images.transpose(1, 2)
        everywhere = torch.cat([queries @ prompt.transpose(1, 2), on_images], dim=-1)
        counted = wanted.any(dim=-1)
        # Words that do not count look at everything: their loss is finite, and left out.
        kept = wanted | ~counted[..., None]
        chosen = on_images.masked_fill(~kept, -torch.inf).logsumexp(dim=-1)
        loss = everywhere.logsumexp(dim=-1) - chosen
        return torch.where(counted, loss, 0.0).sum() / counted.sum().clamp_min(1)
