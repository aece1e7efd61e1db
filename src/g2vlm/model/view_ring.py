"""Keys and values of an endless stream of views, in constant memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from g2vlm.model.attention import attend
from g2vlm.model.cache import KeysValues
from g2vlm.model.config import MixtureConfig
from g2vlm.model.rotary import multimodal_rotation, rotate_halves


@dataclass(frozen=True)
class RingSize:
    """What a ring has room for."""

    prompt_tokens: int
    """Text before the first view; kept for ever."""
    view_tokens: int
    """Tokens of each view."""
    anchors: int
    """First views that are kept for ever."""
    window: int
    """Latest views, besides the anchors, that a new view sees."""

    @property
    def num_tokens(self) -> int:
        """Tokens of everything at once; one place more than the window, for the view being read."""
        return self.prompt_tokens + (self.anchors + self.window + 1) * self.view_tokens


class ViewRing:
    """A memory that keeps the prompt, the first views (anchors) and the latest ones.

    The first pass stores the prompt, each later one a view. A new view takes the place of the oldest one
    outside of the window: nothing is moved, since attention does not depend on the order of keys. So that
    distances between positions stay those of a short sequence, the prompt and the anchors follow the window:
    their keys are turned on by the positions of the views that were dropped.

    Args:
        config: of the mixture that fills it.
        size: what there is room for.
        dtype: of keys and values.
        device: where they are kept.
    """

    def __init__(
        self, config: MixtureConfig, size: RingSize, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        shape = (config.num_layers, 1, config.num_kv_heads, size.num_tokens, config.head_dim)
        self._keys = torch.empty(shape, dtype=dtype, device=device)
        self._values = torch.empty(shape, dtype=dtype, device=device)
        self.size = size
        self.length = 0
        self.num_views = 0
        self._config = config
        self._start = 0
        self._kept: Tensor | None = None

    @property
    def capacity(self) -> int:
        """Tokens that there is room for."""
        return self.size.num_tokens

    @property
    def num_bytes(self) -> int:
        """Bytes of the buffers."""
        return self._keys.nbytes + self._values.nbytes

    @property
    def _kept_tokens(self) -> int:
        return self.size.prompt_tokens + self.size.anchors * self.size.view_tokens

    @property
    def num_dropped(self) -> int:
        """Views forgotten so far, the one that the next view replaces included."""
        return max(0, self.num_views - self.size.anchors - self.size.window)

    def reserve(self, num_tokens: int) -> None:
        """Check that the prompt comes first, then one view at a time."""
        expected = self.size.prompt_tokens if self.length == 0 else self.size.view_tokens
        if num_tokens != expected:
            raise ValueError(f"Expected {expected} tokens next in this ring, got {num_tokens}.")

    def store(self, layer: int, pieces: Sequence[KeysValues]) -> None:
        """Write the keys and values of a pass into its place."""
        start = self._start
        for keys, values in pieces:
            end = start + keys.shape[2]
            self._keys[layer, :, :, start:end] = keys
            self._values[layer, :, :, start:end] = values
            start = end

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "batch heads tokens channels"],
        num_new: int,
        *,
        causal: bool,
    ) -> Float[Tensor, "batch heads tokens channels"]:
        """Attention of queries to everything kept and to the pass itself."""
        end = max(self.length, self._start + num_new)
        return attend(queries, self._keys[layer, :, :, :end], self._values[layer, :, :, :end], causal=causal)

    def advance(self, num_tokens: int) -> None:
        """Declare the prompt or a view written by every layer, and choose the place of the next view."""
        if self.length:
            self.num_views += 1
        self.length = max(self.length, self._start + num_tokens)
        after_anchors = self.num_views - self.size.anchors
        slot = self.num_views
        if after_anchors >= 0:
            slot = self.size.anchors + after_anchors % (self.size.window + 1)
        self._start = self.size.prompt_tokens + slot * self.size.view_tokens
        if after_anchors == 0:
            # A copy, so that turning them on for ever does not add up rounding errors.
            self._kept = self._keys[:, :, :, : self._kept_tokens].clone()

    def follow(self, view_step: int, offset: int = 0) -> None:
        """Bring the prompt and the anchors up to the window before the next view is read.

        Args:
            view_step: positions that one view takes.
            offset: positions that everything else was moved by with `shift`, in all.
        """
        delta = self.num_dropped * view_step + offset
        if self._kept is not None and delta:
            for layer, kept in enumerate(self._kept):
                self._keys[layer, :, :, : self._kept_tokens] = self._turned(kept, delta)

    def shift(self, delta: int) -> None:
        """Move the positions of the latest views by `delta`: angles of huge positions are inexact."""
        for keys in self._keys:
            latest = keys[:, :, self._kept_tokens : self.length]
            keys[:, :, self._kept_tokens : self.length] = self._turned(latest, delta)

    def _turned(self, keys: Tensor, delta: int) -> Tensor:
        positions = torch.full((3, 1), delta, device=keys.device)
        rotation = multimodal_rotation(positions, self._config.rope_sections, self._config.rope_theta)
        return rotate_halves(keys, rotation).to(keys.dtype)
