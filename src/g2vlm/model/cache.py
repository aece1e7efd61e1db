"""Keys and values of the tokens that the mixture has already read."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from g2vlm.model.attention import attend
from g2vlm.model.attention_parts import attend_part, join
from g2vlm.model.config import MixtureConfig

BLOCK_TOKENS = 1024
"""Tokens by which a growing cache grows at least."""


@dataclass(frozen=True)
class CacheShape:
    """What the size of a cache depends on."""

    num_layers: int
    num_kv_heads: int
    head_dim: int

    @classmethod
    def of(cls, config: MixtureConfig) -> "CacheShape":
        """Take the sizes from a mixture."""
        return cls(config.num_layers, config.num_kv_heads, config.head_dim)

    def num_bytes(self, num_tokens: int, dtype: torch.dtype, batch: int = 1) -> int:
        """Bytes that `num_tokens` tokens of `batch` sequences take."""
        return 2 * self.num_layers * batch * self.num_kv_heads * num_tokens * self.head_dim * dtype.itemsize


KeysValues = tuple[Float[Tensor, "batch kv_heads _ channels"], Float[Tensor, "batch kv_heads _ channels"]]
"""Keys and values of consecutive tokens; pieces of one pass differ in their number of tokens."""


def join_tokens(
    pieces: Sequence[Float[Tensor, "batch heads _ channels"]],
) -> Float[Tensor, "batch heads tokens channels"]:
    """Concatenate along tokens, without a copy where there is one piece."""
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces), dim=2)


@runtime_checkable
class LayerMemory(Protocol):
    """What the layers of a pass read, and where they leave their keys and values."""

    def store(self, layer: int, pieces: Sequence[KeysValues]) -> None:
        """Keep the keys and values of the pass in one layer."""

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "batch heads tokens channels"],
        num_new: int,
        *,
        causal: bool,
    ) -> Float[Tensor, "batch heads tokens channels"]:
        """Attention of queries to what was read before and to the first `num_new` keys of the pass."""
        ...


@runtime_checkable
class Memory(LayerMemory, Protocol):
    """What one pass through the mixture continues from."""

    def reserve(self, num_tokens: int) -> None:
        """Make room, before the first layer, for the tokens of the pass."""

    def advance(self, num_tokens: int) -> None:
        """Declare, after the last layer, the tokens of the pass read."""


class PassMemory:
    """Keys and values of one layer of one pass that nothing will follow; differentiable."""

    def store(self, layer: int, pieces: Sequence[KeysValues]) -> None:
        """Keep the keys and values of this pass."""
        self._pieces = list(pieces)
        self._keys = join_tokens([keys for keys, _ in pieces])
        self._values = join_tokens([values for _, values in pieces])
        self._beginnings: dict[int, KeysValues] = {}

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "batch heads tokens channels"],
        num_new: int,
        *,
        causal: bool,
    ) -> Float[Tensor, "batch heads tokens channels"]:
        """Attention of queries to the first `num_new` keys of the pass."""
        return attend(queries, self._keys[:, :, :num_new], self._values[:, :, :num_new], causal=causal)

    def attend_around(
        self,
        queries: Float[Tensor, "batch heads tokens channels"],
        num_new: int,
        hidden: slice,
        *,
        causal: bool,
    ) -> Float[Tensor, "batch heads tokens channels"]:
        """Like `attend`, but as if the keys in `hidden`, a range of whole pieces, were not there."""
        if hidden.start not in self._beginnings:
            self._beginnings[hidden.start] = self._range(0, hidden.start)
        shared, own = self._beginnings[hidden.start], self._range(hidden.stop, num_new)
        keys, values = (torch.cat(parts, dim=2) for parts in zip(shared, own, strict=True))
        return attend(queries, keys, values, causal=causal)

    def _range(self, start: int, end: int) -> KeysValues:
        """Some whole pieces joined.

        Slices of all keys would do, but the gradient of each slice is as large as all keys together.
        """
        ends = list(accumulate(keys.shape[2] for keys, _ in self._pieces))
        first, last = (ends.index(place) + 1 if place else 0 for place in (start, end))
        keys, values = zip(*self._pieces[first:last], strict=True)
        return join_tokens(keys), join_tokens(values)


@dataclass(frozen=True, eq=False)
class Segment:
    """Keys and values of consecutive tokens of one sequence, which nobody changes any more.

    Whoever holds it may read it, in any thread, also while more is read behind it elsewhere.
    """

    keys: Float[Tensor, "layers kv_heads tokens channels"]
    values: Float[Tensor, "layers kv_heads tokens channels"]

    @property
    def num_tokens(self) -> int:
        """Tokens in it."""
        return self.keys.shape[2]

    @property
    def num_bytes(self) -> int:
        """Bytes of its numbers."""
        return self.keys.nbytes + self.values.nbytes

    def to(self, device: torch.device | str) -> "Segment":
        """The same on another device."""
        return Segment(self.keys.to(device), self.values.to(device))


@dataclass(eq=False)
class _Block:
    """Room for some tokens; the first `filled` are there."""

    keys: Float[Tensor, "layers batch kv_heads capacity channels"]
    values: Float[Tensor, "layers batch kv_heads capacity channels"]
    filled: int = 0

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]


class KeyValueCache:
    """Keys and values of every layer, in reading order, in one block or several.

    `length` tokens are filled. A static cache refuses to outgrow its capacity; a growing one adds blocks, so
    that what it holds is never copied and the memory of a long sequence is its own size. The tokens of one
    pass lie in one block. For one thread; `segments` gives others what they may read.
    """

    def __init__(
        self,
        shape: CacheShape,
        capacity: int,
        *,
        batch: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        growing: bool = False,
    ) -> None:
        self.shape = shape
        self.growing = growing
        self._first, self._batch = capacity, batch
        self._dtype, self._device = dtype, torch.device(device)
        self._blocks = [self._room(capacity)]

    def _room(self, capacity: int) -> _Block:
        size = (self.shape.num_layers, self._batch, self.shape.num_kv_heads, capacity, self.shape.head_dim)
        keys, values = (torch.empty(size, dtype=self._dtype, device=self._device) for _ in range(2))
        return _Block(keys, values)

    @property
    def length(self) -> int:
        """Tokens that are filled."""
        return sum(block.filled for block in self._blocks)

    @property
    def capacity(self) -> int:
        """Tokens that the memory taken so far has room for."""
        return sum(block.capacity for block in self._blocks)

    @property
    def batch(self) -> int:
        """Sequences stored side by side."""
        return self._batch

    @property
    def num_bytes(self) -> int:
        """Bytes of the buffers."""
        return self.shape.num_bytes(self.capacity, self._dtype, self._batch)

    def reserve(self, num_tokens: int) -> None:
        """Make room for `num_tokens` more; a static cache raises `ValueError` where they do not fit."""
        last = self._blocks[-1]
        if last.filled + num_tokens <= last.capacity:
            return
        if not self.growing:
            raise ValueError(
                f"The cache holds {self.capacity} tokens, {self.length} are filled, {num_tokens} more asked."
            )
        if not last.filled:
            self._blocks.pop()
        self._blocks.append(self._room(max(num_tokens, self._first, BLOCK_TOKENS)))

    def store(self, layer: int, pieces: Sequence[KeysValues]) -> None:
        """Write the keys and values of a pass behind the filled part of one layer; `length` does not move."""
        block = self._blocks[-1]
        start = block.filled
        for keys, values in pieces:
            end = start + keys.shape[2]
            block.keys[layer, :, :, start:end] = keys
            block.values[layer, :, :, start:end] = values
            start = end

    def read(
        self, layer: int, num_new: int
    ) -> tuple[Float[Tensor, "batch kv_heads keys channels"], Float[Tensor, "batch kv_heads keys channels"]]:
        """The filled keys and values of one layer and `num_new` written after them; several blocks joined."""
        ends = [block.filled for block in self._blocks]
        ends[-1] += num_new
        pairs = list(zip(self._blocks, ends, strict=True))
        keys = join_tokens([block.keys[layer, :, :, :end] for block, end in pairs])
        return keys, join_tokens([block.values[layer, :, :, :end] for block, end in pairs])

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "batch heads tokens channels"],
        num_new: int,
        *,
        causal: bool,
    ) -> Float[Tensor, "batch heads tokens channels"]:
        """Attention of queries to everything filled and the first `num_new` keys written after it."""
        *earlier, last = self._blocks
        end = last.filled + num_new
        keys, values = last.keys[layer, :, :, :end], last.values[layer, :, :, :end]
        if not earlier:
            return attend(queries, keys, values, causal=causal)
        own = end - queries.shape[2] if causal else 0
        part = attend_part(queries, keys[:, :, own:], values[:, :, own:], causal=causal)
        if own:
            part = join(part, attend_part(queries, keys[:, :, :own], values[:, :, :own]))
        for block in earlier:
            filled = (layer, slice(None), slice(None), slice(block.filled))
            part = join(part, attend_part(queries, block.keys[filled], block.values[filled]))
        return part.out.to(values.dtype)

    def advance(self, num_tokens: int) -> None:
        """Declare `num_tokens` written by every layer."""
        self._blocks[-1].filled += num_tokens

    def append(self, segment: Segment) -> None:
        """Take in what was read elsewhere, behind what is filled."""
        start = 0
        while start < segment.num_tokens:
            last = self._blocks[-1]
            if last.filled == last.capacity:
                self.reserve(1)
                continue
            count = min(segment.num_tokens - start, last.capacity - last.filled)
            part = slice(start, start + count)
            for layer in range(self.shape.num_layers):
                self.store(
                    layer, [(segment.keys[layer][None, :, part], segment.values[layer][None, :, part])]
                )
            self.advance(count)
            start += count

    def truncate(self, length: int) -> None:
        """Forget everything after the first `length` tokens."""
        if not 0 <= length <= self.length:
            raise ValueError(f"Cannot truncate a cache of {self.length} tokens to {length}.")
        while len(self._blocks) > 1 and self.length - self._blocks[-1].filled >= length:
            self._blocks.pop()
        self._blocks[-1].filled -= self.length - length

    def segments(self) -> tuple[Segment, ...]:
        """What is filled, to be read while this cache grows; truncating it gives its place to others.

        Raises:
            ValueError: several sequences lie side by side.
        """
        if self._batch != 1:
            raise ValueError(f"Expected a cache of one sequence, got {self._batch}.")
        return tuple(
            Segment(block.keys[:, 0, :, : block.filled], block.values[:, 0, :, : block.filled])
            for block in self._blocks
            if block.filled
        )
