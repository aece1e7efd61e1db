"""Keys and values of the tokens that the mixture has already read."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from g2vlm.model.attention import SharedKeys, attend, attend_shared
from g2vlm.model.config import MixtureConfig


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


@dataclass(frozen=True)
class StepMemory:
    """A cache as passes over one token of each row see it: how much is filled is data, not shape.

    Every such pass has the same shapes, so that a compiled one fits all.
    """

    keys: Float[Tensor, "layers batch kv_heads capacity channels"]
    values: Float[Tensor, "layers batch kv_heads capacity channels"]
    place: Int[Tensor, " 1"]
    """Where the token goes; what stands before it is filled."""
    trunk_keys: Float[Tensor, "layers 1 kv_heads shared channels"] | None = None
    """The beginning that all rows share, if there is one."""
    trunk_values: Float[Tensor, "layers 1 kv_heads shared channels"] | None = None
    exists: Bool[Tensor, "batch capacity"] | None = None
    """False where a row is padding; only behind a shared beginning."""

    def store(self, layer: int, pieces: Sequence[KeysValues]) -> None:
        """Write the keys and values of one token of each row."""
        ((keys, values),) = pieces
        self.keys[layer].index_copy_(2, self.place, keys)
        self.values[layer].index_copy_(2, self.place, values)

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "batch heads 1 channels"],
        num_new: int,
        *,
        causal: bool,
    ) -> Float[Tensor, "batch heads 1 channels"]:
        """Attention of one token of each row to itself and everything before."""
        keys, values = self.keys[layer], self.values[layer]
        seen = torch.arange(keys.shape[2], device=keys.device)[None] <= self.place
        if self.trunk_keys is None or self.trunk_values is None or self.exists is None:
            return attend(queries, keys, values, key_mask=seen)
        shared = SharedKeys(self.trunk_keys[layer], self.trunk_values[layer])
        return attend_shared(queries, shared, keys, values, self.exists & seen)


class KeyValueCache:
    """Preallocated keys and values of every layer, in reading order.

    `length` tokens are filled. A static cache refuses to outgrow its capacity; a growing one doubles its
    buffers. Truncating only moves `length` back, so that a shared beginning (the perceived photos) can be
    continued many times without being recomputed or copied. A cleared cache holds zeros where nothing was
    written yet.
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
        cleared: bool = False,
    ) -> None:
        self.shape = shape
        self.growing = growing
        self.cleared = cleared
        self.length = 0
        size = (shape.num_layers, batch, shape.num_kv_heads, capacity, shape.head_dim)
        new = torch.zeros if cleared else torch.empty
        self._keys = new(size, dtype=dtype, device=device)
        self._values = new(size, dtype=dtype, device=device)

    @property
    def capacity(self) -> int:
        """Tokens that fit without new memory."""
        return self._keys.shape[3]

    @property
    def batch(self) -> int:
        """Sequences stored side by side."""
        return self._keys.shape[1]

    @property
    def buffers(self) -> tuple[Float[Tensor, "layers batch kv_heads capacity channels"], ...]:
        """All keys and all values, as they lie in memory; what stands behind `length` means nothing."""
        return self._keys, self._values

    @property
    def num_bytes(self) -> int:
        """Bytes of the buffers."""
        return 2 * self._keys.numel() * self._keys.element_size()

    def reserve(self, num_tokens: int) -> None:
        """Make room for `num_tokens` more; a static cache raises `ValueError` where they do not fit."""
        needed = self.length + num_tokens
        if needed <= self.capacity:
            return
        if not self.growing:
            raise ValueError(
                f"The cache holds {self.capacity} tokens, {self.length} are filled, {num_tokens} more asked."
            )
        capacity = max(needed, 2 * self.capacity)
        self._keys, self._values = (self._grown(buffer, capacity) for buffer in (self._keys, self._values))

    def _grown(self, buffer: Tensor, capacity: int) -> Tensor:
        size = (*buffer.shape[:3], capacity, buffer.shape[4])
        larger = buffer.new_zeros(size) if self.cleared else buffer.new_empty(size)
        larger[:, :, :, : self.length] = buffer[:, :, :, : self.length]
        return larger

    def store(self, layer: int, pieces: Sequence[KeysValues]) -> None:
        """Write the keys and values of a pass behind the filled part of one layer; `length` does not move."""
        start = self.length
        for keys, values in pieces:
            end = start + keys.shape[2]
            self._keys[layer, :, :, start:end] = keys
            self._values[layer, :, :, start:end] = values
            start = end

    def read(
        self, layer: int, num_new: int
    ) -> tuple[Float[Tensor, "batch kv_heads keys channels"], Float[Tensor, "batch kv_heads keys channels"]]:
        """Views of the filled keys and values of one layer and of `num_new` written after them."""
        end = self.length + num_new
        return self._keys[layer, :, :, :end], self._values[layer, :, :, :end]

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "batch heads tokens channels"],
        num_new: int,
        *,
        causal: bool,
    ) -> Float[Tensor, "batch heads tokens channels"]:
        """Attention of queries to everything filled and the first `num_new` keys written after it."""
        keys, values = self.read(layer, num_new)
        return attend(queries, keys, values, causal=causal)

    def step_memory(self) -> StepMemory:
        """This cache for a pass over one further token of each row; `advance` by 1 afterwards.

        The pass also reads what is not filled, without effect if these are numbers: the cache must be one
        that was cleared.
        """
        return StepMemory(self._keys, self._values, self._place())

    def _place(self) -> Int[Tensor, " 1"]:
        if not self.cleared:
            raise ValueError(
                "Expected a cleared cache: what is not filled may hold anything, also no numbers."
            )
        return torch.full((1,), self.length, dtype=torch.long, device=self._keys.device)

    def advance(self, num_tokens: int) -> None:
        """Declare `num_tokens` written by every layer."""
        self.length += num_tokens

    def truncate(self, length: int) -> None:
        """Forget everything after the first `length` tokens."""
        if not 0 <= length <= self.length:
            raise ValueError(f"Cannot truncate a cache of {self.length} tokens to {length}.")
        self.length = length

    def move_to(self, device: torch.device | str) -> None:
        """Move the filled part to another device, for example out of a GPU while nobody asks."""
        self._keys, self._values = self._keys.to(device), self._values.to(device)

    def branch(self, batch: int, capacity: int, padding: Int[Tensor, " batch"]) -> "BranchCache":
        """Start `batch` continuations of this cache that read its filled part without copying it.

        Args:
            batch: continuations side by side; this cache must hold one sequence.
            capacity: tokens that each continuation may add.
            padding: how many of the first tokens of each continuation are padding.
        """
        return BranchCache(self, batch, capacity, padding)


class BranchCache(KeyValueCache):
    """Continuations of a shared cache, which must not change meanwhile; `length` counts what they add."""

    def __init__(
        self, trunk: KeyValueCache, batch: int, capacity: int, padding: Int[Tensor, " batch"]
    ) -> None:
        if trunk.batch != 1:
            raise ValueError(f"Only a cache of one sequence can branch, this one has {trunk.batch}.")
        buffers = trunk._keys
        super().__init__(
            trunk.shape,
            capacity,
            batch=batch,
            dtype=buffers.dtype,
            device=buffers.device,
            cleared=trunk.cleared,
        )
        self.trunk = trunk
        self.padding = padding.to(buffers.device, torch.long).contiguous()
        self._exists = torch.arange(capacity, device=buffers.device) >= self.padding[:, None]

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "batch heads tokens channels"],
        num_new: int,
        *,
        causal: bool,
    ) -> Float[Tensor, "batch heads tokens channels"]:
        """Attention to the trunk and to what this continuation added; always causal inside."""
        if not causal and queries.shape[2] > 1:
            raise ValueError("A continuation is text: its blocks are causal.")
        keys, values = self.read(layer, num_new)
        shared = SharedKeys(*self.trunk.read(layer, 0))
        return attend_shared(queries, shared, keys, values, self._exists[:, : keys.shape[2]])

    def step_memory(self) -> StepMemory:
        """As of any cache; passes also see the trunk."""
        filled = slice(self.trunk.length)
        keys, values = self.trunk._keys[:, :, :, filled], self.trunk._values[:, :, :, filled]
        return StepMemory(self._keys, self._values, self._place(), keys, values, self._exists)
