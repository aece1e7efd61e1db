"""Attention over many views with chosen keys: every query, all keys of its own view, some of the others.

Training-free and approximate. Dense attention over N views of P tokens costs (N P)^2; with k keys chosen per
view it costs N P (P + N k). In the spirit of block-sparse attention for reconstruction (FastVGGT,
arXiv 2509.02560; Faster VGGT with block-sparse global attention, arXiv 2509.07120).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float, Int
from torch import Tensor

from g2vlm.errors import InputError
from g2vlm.model.attention import attend
from g2vlm.model.cache import KeysValues, join_tokens
from g2vlm.model.layout import Layout

_PROBES_PER_VIEW = 16
_SCORES_AT_ONCE = 1 << 24


class KeyChoice(Enum):
    """Which keys of a view the other views read."""

    MASS = "mass"
    """Those that draw most attention from 16 queries of every view, for each layer and key head."""
    STRIDE = "stride"
    """Evenly spaced ones, the same in every layer."""


@dataclass(frozen=True)
class KeySelection:
    """How many keys of a view the other views read, and which."""

    keys_per_view: int
    """At least 1; with as many as a view has tokens the result is that of dense attention."""
    choice: KeyChoice = KeyChoice.MASS
    """The rule."""

    def __post_init__(self) -> None:
        if self.keys_per_view < 1:
            raise InputError(f"Expected at least 1 key per view, got {self.keys_per_view}.")


class SelectingMemory:
    """Keys and values of one pass over text and one block of views, read selectively; nothing follows it.

    Not a cache: it holds one layer at a time. Text and the start and end tokens of views are read by all and
    read all.

    Args:
        layout: text blocks, then one bidirectional block of all views.
        num_views: views in that block, each with a start and an end token and equally many patches.
        selection: which keys are read across views.

    Raises:
        InputError: the layout is not of that kind, for instance because views see only earlier ones.
    """

    def __init__(self, layout: Layout, num_views: int, selection: KeySelection) -> None:
        last = layout.blocks[-1]
        whole = sum(block.num_geometric for block in layout.blocks)
        fits = num_views > 0 and last.num_geometric == whole and last.num_geometric % num_views == 0
        if not fits or last.num_semantic != 2 * num_views:
            raise InputError(
                "Expected all views in one block for key selection: use global view attention, without "
                "questions."
            )
        self.num_views = num_views
        self.num_patches = whole // num_views
        self.selection = selection
        self._num_tokens, self._is_read = layout.num_tokens, False

    def reserve(self, num_tokens: int) -> None:
        """Check that this is the pass that it was made for; keys and values are those of the layer itself."""
        if self._is_read or num_tokens != self._num_tokens:
            raise ValueError(
                f"Expected one pass over {self._num_tokens} tokens, got {num_tokens}"
                f"{' after it' if self._is_read else ''}: key selection keeps nothing for a further pass."
            )

    def advance(self, num_tokens: int) -> None:
        """Declare the pass read: no other follows."""
        self._is_read = True

    def store(self, layer: int, pieces: Sequence[KeysValues]) -> None:
        """Keep the keys and values of the running layer."""
        self._keys = join_tokens([keys for keys, _ in pieces])
        self._values = join_tokens([values for _, values in pieces])

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "batch heads tokens channels"],
        num_new: int,
        *,
        causal: bool,
    ) -> Float[Tensor, "batch heads tokens channels"]:
        """Dense attention for text; for the block of views, each to its own keys and the chosen others."""
        keys, values = self._keys[:, :, :num_new], self._values[:, :, :num_new]
        if causal or num_new < self._keys.shape[2]:
            return attend(queries, keys, values, causal=causal)
        frames, shared = 2 * self.num_views, num_new - self.num_views * self.num_patches
        out = torch.empty_like(queries)
        out[:, :, :frames] = attend(queries[:, :, :frames], keys, values)
        patches = queries[:, :, frames:].unflatten(2, (self.num_views, self.num_patches))
        own = [
            kind[:, :, shared:].unflatten(2, (self.num_views, self.num_patches)) for kind in (keys, values)
        ]
        chosen = self._choose(patches, own[0])
        # (batch, kv_heads, views, chosen, channels)
        index = chosen[..., None].expand(*chosen.shape, keys.shape[-1])
        across = [kind.gather(3, index) for kind in own]
        for view in range(self.num_views):
            start = frames + view * self.num_patches
            read = [
                self._readable(kind[:, :, :shared], mine[:, :, view], theirs, view)
                for kind, mine, theirs in zip((keys, values), own, across, strict=True)
            ]
            out[:, :, start : start + self.num_patches] = attend(patches[:, :, view], *read)
        return out

    def _readable(self, shared: Tensor, own: Tensor, across: Tensor, view: int) -> Tensor:
        """What the queries of one view read: text and frames, itself whole, the chosen of the others."""
        before, after = across[:, :, :view].flatten(2, 3), across[:, :, view + 1 :].flatten(2, 3)
        return torch.cat([shared, own, before, after], dim=2)

    def _choose(
        self,
        queries: Float[Tensor, "batch heads views patches channels"],
        keys: Float[Tensor, "batch kv_heads views patches channels"],
    ) -> Int[Tensor, "batch kv_heads views chosen"]:
        count = min(self.selection.keys_per_view, self.num_patches)
        if self.selection.choice is KeyChoice.STRIDE or count == self.num_patches:
            place = torch.arange(count, device=keys.device) * self.num_patches // count
            return place.expand(*keys.shape[:3], count)
        mass = _attention_mass(queries, keys)
        return mass.topk(count, dim=-1, sorted=False).indices


def _attention_mass(
    queries: Float[Tensor, "batch heads views patches channels"],
    keys: Float[Tensor, "batch kv_heads views patches channels"],
) -> Float[Tensor, "batch kv_heads views patches"]:
    """Attention that every key draws from evenly spaced queries of all views, some views at a time."""
    step = max(1, queries.shape[3] // _PROBES_PER_VIEW)
    probes = queries[:, :, :, step // 2 :: step].unflatten(1, (keys.shape[1], -1))
    flat = keys.flatten(2, 3)
    mass = torch.zeros(flat.shape[:3], dtype=torch.float32, device=keys.device)
    per_view = probes.shape[0] * probes.shape[1] * probes.shape[2] * probes.shape[4] * flat.shape[2]
    at_once = max(1, _SCORES_AT_ONCE // per_view)
    for start in range(0, probes.shape[3], at_once):
        some = probes[:, :, :, start : start + at_once].flatten(2, 4)
        scores = (some * some.shape[-1] ** -0.5) @ flat.mT
        mass += scores.float().softmax(dim=-1).sum(dim=2)
    return mass.unflatten(2, keys.shape[2:4])
