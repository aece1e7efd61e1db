"""Memory of texts that are decoded side by side, each behind a beginning that it only reads.

A row is one text: a question and the answer so far. What stands before it, photos or a conversation, is a
beginning: segments that several rows share and nobody copies. Rows have lengths of their own, come and go.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from g2vlm.model.attention_parts import AttentionPart, attend_part, attend_shared, explicit_part, join, joined
from g2vlm.model.cache import CacheShape, KeysValues, Segment

Beginning = tuple[Segment, ...]
"""What stands before a text, in order."""
GROWTH_TOKENS = 128
"""Tokens by which the room of rows grows; copied is then their own text only, a layer at a time."""


@dataclass(frozen=True, eq=False)
class Readers:
    """A segment, and the rows that read it."""

    segment: Segment
    rows: tuple[int, ...]
    index: Int[Tensor, " rows"] | None
    """The same on the device; None where it is every row."""


def readers_of(beginnings: Sequence[Beginning], device: torch.device) -> tuple[Readers, ...]:
    """Each segment once, with all rows that read it."""
    rows_of: dict[Segment, list[int]] = {}
    for row, beginning in enumerate(beginnings):
        for segment in beginning:
            rows_of.setdefault(segment, []).append(row)
    return tuple(
        Readers(
            segment,
            tuple(rows),
            None if len(rows) == len(beginnings) else torch.tensor(rows, device=device),
        )
        for segment, rows in rows_of.items()
    )


def with_beginnings(
    own: AttentionPart,
    queries: Float[Tensor, "rows heads tokens channels"],
    readers: Sequence[Readers],
    layer: int,
) -> Float[Tensor, "rows heads tokens channels"]:
    """Attention to the own keys of each row, together with that to its beginning."""
    for number, reader in enumerate(readers):
        index, keys, values = reader.index, reader.segment.keys[layer], reader.segment.values[layer]
        if index is not None:
            part = attend_shared(queries[index], keys, values)
            own = own.with_rows(index, join(own.rows(index), part))
        elif number == len(readers) - 1:
            return joined(own, attend_shared(queries, keys, values)).to(queries.dtype)
        else:
            own = join(own, attend_shared(queries, keys, values))
    return own.out.to(queries.dtype)


class Prefill:
    """The pass over the questions of some rows at once, each behind its beginning.

    Shorter questions are padded at their end, where nobody of the same row looks before it is overwritten.

    Args:
        beginnings: of each row.
        lengths: tokens of each row that are no padding.
        device: where the segments are.
    """

    def __init__(self, beginnings: Sequence[Beginning], lengths: Sequence[int], device: torch.device) -> None:
        self.beginnings, self.lengths = tuple(beginnings), tuple(lengths)
        self.keys: list[Float[Tensor, "rows kv_heads tokens channels"]] = []
        self.values: list[Float[Tensor, "rows kv_heads tokens channels"]] = []
        self._readers = readers_of(beginnings, device)

    def reserve(self, num_tokens: int) -> None:
        """Check that it is a pass over the questions."""
        if self.keys or num_tokens != max(self.lengths):
            raise ValueError(f"Expected one pass over {max(self.lengths)} tokens, got {num_tokens}.")

    def store(self, layer: int, pieces: Sequence[KeysValues]) -> None:
        """Keep the keys and values of one layer, as they come."""
        ((keys, values),) = pieces
        self.keys.append(keys)
        self.values.append(values)

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "rows heads tokens channels"],
        num_new: int,
        *,
        causal: bool,
    ) -> Float[Tensor, "rows heads tokens channels"]:
        """Attention of the questions to their beginnings and, causally, to themselves."""
        part = attend_part(queries, self.keys[layer], self.values[layer], causal=True)
        return with_beginnings(part, queries, self._readers, layer)

    def advance(self, num_tokens: int) -> None:
        """Nothing to do: `RowCache.join` takes what was read."""


class RowCache:
    """Keys and values of rows, for passes over one further token of each.

    For one thread. A pass reserves, stores and attends in every layer, and advances.

    Args:
        shape: of the network.
        dtype: of keys and values.
        device: where they are kept.
        lasting: keep the room of rows that have left, at the same place.
    """

    def __init__(
        self,
        shape: CacheShape,
        dtype: torch.dtype,
        device: torch.device | str,
        *,
        lasting: bool = False,
    ) -> None:
        self.shape, self.dtype, self.device = shape, dtype, torch.device(device)
        self.lasting = lasting
        self.lengths: list[int] = []
        self.beginnings: list[Beginning] = []
        self.readers: tuple[Readers, ...] = ()
        self._keys = [self._room(0, 0) for _ in range(shape.num_layers)]
        self._values = [self._room(0, 0) for _ in range(shape.num_layers)]
        self._bias: Float[Tensor, "rows 1 1 keys"] | None = None
        self._index: Int[Tensor, "rows 1 1 1"] | None = None

    @property
    def num_rows(self) -> int:
        """Texts side by side."""
        return len(self.lengths)

    @property
    def capacity(self) -> tuple[int, int]:
        """Rows and tokens of each that there is room for."""
        return self._keys[0].shape[0], self._keys[0].shape[2]

    @property
    def num_bytes(self) -> int:
        """Bytes of the buffers, without the beginnings."""
        rows, tokens = self.capacity
        return self.shape.num_bytes(tokens, self.dtype, rows)

    @property
    def buffers(self) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values by layer: (rows, kv_heads, tokens, channels), zeros where nothing was written."""
        return self._keys, self._values

    def join(self, prefill: Prefill) -> None:
        """Let rows in behind those that are there, with what a pass read of them."""
        first, count = self.num_rows, len(prefill.lengths)
        self._make_room(first + count, max(prefill.lengths) + 1)
        for own, new in ((self._keys, prefill.keys), (self._values, prefill.values)):
            for buffer, read in zip(own, new, strict=True):
                buffer[first : first + count, :, : read.shape[2]] = read
        self.lengths += prefill.lengths
        self.beginnings += prefill.beginnings
        self._regroup()

    def leave(self, row: int) -> None:
        """Let a row go; the last one takes its place."""
        last = self.num_rows - 1
        if row != last:
            filled = self.lengths[last]
            for buffer in (*self._keys, *self._values):
                buffer[row, :, :filled] = buffer[last, :, :filled]
        self.lengths[row], self.beginnings[row] = self.lengths[last], self.beginnings[last]
        self.lengths.pop()
        self.beginnings.pop()
        self._regroup()

    def segment(self, row: int, num_tokens: int) -> Segment:
        """A copy of the first tokens of a row."""
        keys, values = (
            torch.stack([buffer[row, :, :num_tokens] for buffer in kind])
            for kind in (self._keys, self._values)
        )
        return Segment(keys, values)

    def reserve(self, num_tokens: int = 1) -> None:
        """Make room for one more token of each row."""
        self._make_room(self.num_rows, max(self.lengths) + num_tokens)
        self._bias = self._index = None

    def store(self, layer: int, pieces: Sequence[KeysValues]) -> None:
        """Write the keys and values of one token of each row."""
        for buffers, new in zip((self._keys, self._values), pieces[0], strict=True):
            buffer = buffers[layer][: self.num_rows]
            if self._are_equal():
                buffer[:, :, self.lengths[0]] = new[:, :, 0]
            else:
                buffer.scatter_(2, self._places().expand(*new.shape), new)

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "rows heads 1 channels"],
        num_new: int,
        *,
        causal: bool,
    ) -> Float[Tensor, "rows heads 1 channels"]:
        """Attention of one token of each row to its beginning, its own text and itself."""
        keys, values = self._keys[layer][: self.num_rows], self._values[layer][: self.num_rows]
        if self._are_equal():
            end = self.lengths[0] + 1
            own = attend_part(queries, keys[:, :, :end], values[:, :, :end])
        else:
            own = attend_part(queries, keys, values, bias=self._bias_of_rows())
        return with_beginnings(own, queries, self.readers, layer)

    def advance(self, num_tokens: int = 1) -> None:
        """Declare one token of each row written by every layer."""
        self.lengths = [length + num_tokens for length in self.lengths]

    def _are_equal(self) -> bool:
        return min(self.lengths) == max(self.lengths)

    def _places(self) -> Int[Tensor, "rows 1 1 1"]:
        if self._index is None:
            self._index = torch.tensor(self.lengths, device=self.device)[:, None, None, None]
        return self._index

    def _bias_of_rows(self) -> Float[Tensor, "rows 1 1 keys"]:
        if self._bias is None:
            unseen = torch.arange(self.capacity[1], device=self.device) > self._places()
            self._bias = torch.zeros(unseen.shape, device=self.device).masked_fill(unseen, -torch.inf)
        return self._bias

    def _regroup(self) -> None:
        self.readers = readers_of(self.beginnings, self.device)
        self._bias = self._index = None
        if not self.lengths and not self.lasting:
            self._resize(0, 0)

    def _make_room(self, rows: int, tokens: int) -> None:
        """Grow to a power of two rows and a multiple of `GROWTH_TOKENS` tokens."""
        most_rows, most_tokens = self.capacity
        if rows > most_rows:
            most_rows = 1 << (rows - 1).bit_length()
        if tokens > most_tokens:
            most_tokens = -(-tokens // GROWTH_TOKENS) * GROWTH_TOKENS
        if (most_rows, most_tokens) != self.capacity:
            self._resize(most_rows, most_tokens)

    def _resize(self, rows: int, tokens: int) -> None:
        """Move what is there, a layer at a time, so that at most one layer is in memory twice."""
        count, filled = self.num_rows, max(self.lengths, default=0)
        for buffers in (self._keys, self._values):
            for layer, old in enumerate(buffers):
                buffers[layer] = self._room(rows, tokens)
                if count:
                    buffers[layer][:count, :, :filled] = old[:count, :, :filled]

    def _room(self, rows: int, tokens: int) -> Float[Tensor, "rows kv_heads tokens channels"]:
        # Zeros, because what is masked is still multiplied, and must be numbers for that.
        size = (rows, self.shape.num_kv_heads, tokens, self.shape.head_dim)
        return torch.zeros(size, dtype=self.dtype, device=self.device)


@dataclass(frozen=True, eq=False)
class StepMemory:
    """A `RowCache` as compiled passes see it: how much is filled is data, not shape, so that one fits all."""

    keys: Sequence[Float[Tensor, "rows kv_heads tokens channels"]]
    values: Sequence[Float[Tensor, "rows kv_heads tokens channels"]]
    places: Int[Tensor, " rows"]
    """Where each row's token goes; what stands before it is filled."""
    beginning: Sequence[tuple[Tensor, Tensor]]
    """Keys and values (layers, kv_heads, tokens, channels) of what stands before every row."""

    def store(self, layer: int, pieces: Sequence[KeysValues]) -> None:
        """Write the keys and values of one token of each row."""
        for buffers, new in zip((self.keys, self.values), pieces[0], strict=True):
            buffers[layer].scatter_(2, self.places[:, None, None, None].expand(*new.shape), new)

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "rows heads 1 channels"],
        num_new: int,
        *,
        causal: bool,
    ) -> Float[Tensor, "rows heads 1 channels"]:
        """Attention of one token of each row to its beginning, its own text and itself."""
        keys, values = self.keys[layer], self.values[layer]
        seen = torch.arange(keys.shape[2], device=keys.device) <= self.places[:, None]
        grouped = queries.unflatten(1, (keys.shape[1], -1)).flatten(2, 3)
        own = explicit_part(grouped, keys, values, seen[:, None, None])
        part = AttentionPart(own.out.flatten(1, 2)[:, :, None], own.log_sum.flatten(1, 2)[:, :, None])
        for shared_keys, shared_values in self.beginning:
            part = join(part, attend_shared(queries, shared_keys[layer], shared_values[layer]))
        return part.out.to(queries.dtype)
