"""Keys and values of the tokens that the mixture has already read."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

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


class KeyValueCache:
    """Preallocated keys and values of every layer, in reading order.

    `length` tokens are filled. A static cache refuses to outgrow its capacity; a growing one doubles its
    buffers. Truncating only moves `length` back, so that a shared beginning (the perceived photos) can be
    continued many times without being recomputed or copied.
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
        self.length = 0
        size = (shape.num_layers, batch, shape.num_kv_heads, capacity, shape.head_dim)
        self._keys = torch.empty(size, dtype=dtype, device=device)
        self._values = torch.empty(size, dtype=dtype, device=device)

    @property
    def capacity(self) -> int:
        """Tokens that fit without new memory."""
        return self._keys.shape[3]

    @property
    def batch(self) -> int:
        """Sequences stored side by side."""
        return self._keys.shape[1]

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
        larger = buffer.new_empty(*buffer.shape[:3], capacity, buffer.shape[4])
        larger[:, :, :, : self.length] = buffer[:, :, :, : self.length]
        return larger

    def write(
        self,
        layer: int,
        offset: int,
        keys: Float[Tensor, "batch kv_heads tokens channels"],
        values: Float[Tensor, "batch kv_heads tokens channels"],
    ) -> None:
        """Store keys and values at `length + offset` of one layer; `length` does not move."""
        start = self.length + offset
        self._keys[layer, :, :, start : start + keys.shape[2]] = keys
        self._values[layer, :, :, start : start + keys.shape[2]] = values

    def read(
        self, layer: int, num_new: int
    ) -> tuple[Float[Tensor, "batch kv_heads keys channels"], Float[Tensor, "batch kv_heads keys channels"]]:
        """Views of the filled keys and values of one layer and of `num_new` written after them."""
        end = self.length + num_new
        return self._keys[layer, :, :, :end], self._values[layer, :, :, :end]

    def advance(self, num_tokens: int) -> None:
        """Declare `num_tokens` written by every layer."""
        self.length += num_tokens

    def truncate(self, length: int) -> None:
        """Forget everything after the first `length` tokens."""
        if not 0 <= length <= self.length:
            raise ValueError(f"Cannot truncate a cache of {self.length} tokens to {length}.")
        self.length = length
