"""Hands a network to the C library, and runs passes over one token there."""

import ctypes
from ctypes import POINTER, byref, c_float, c_int32, c_int64, c_void_p

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from g2vlm.errors import CheckpointError
from g2vlm.model.mixture import ExpertLayer, Mixture
from g2vlm.model.native.library import FAST_BFLOAT16, FAST_INTEGER, FAST_TILES, load_library
from g2vlm.model.native.linear import NativeLinear
from g2vlm.model.native.matrix import PACKED, CMatrix, StoredMatrix, contiguous
from g2vlm.model.network import G2VLM, NextTokens
from g2vlm.model.rotary import text_frequencies
from g2vlm.model.row_cache import Readers, RowCache

MAX_HEAD_DIM, MAX_GROUP = 256, 48
"""Limits of attention.h."""
MAX_ROWS, MAX_ROWS_QUANTIZED, MAX_ROWS_BY_TILES = 6, 16, 48
"""Rows up to which passes here are faster than torch's, whose products of many rows use other units; where
the processor lacks the instructions, and in float32, that is one."""


class _Layer(ctypes.Structure):
    _fields_ = (
        ("qkv", CMatrix),
        ("out", CMatrix),
        ("gate_up", CMatrix),
        ("down", CMatrix),
        ("attention_norm", c_void_p),
        ("query_norm", c_void_p),
        ("key_norm", c_void_p),
        ("mlp_norm", c_void_p),
    )


class _Network(ctypes.Structure):
    _fields_ = (
        ("num_layers", c_int32),
        ("num_heads", c_int32),
        ("num_kv_heads", c_int32),
        ("head_dim", c_int32),
        ("narrow", c_int32),
        ("eps", c_float),
        ("width", c_int64),
        ("mlp_width", c_int64),
        ("layers", POINTER(_Layer)),
        ("final_norm", c_void_p),
        ("language_head", CMatrix),
        ("embedding", c_void_p),
        ("frequencies", c_void_p),
    )


class _Segment(ctypes.Structure):
    _fields_ = (
        ("keys", c_void_p),
        ("values", c_void_p),
        ("length", c_int64),
        ("layer_stride", c_int64),
        ("head_stride", c_int64),
        ("num_rows", c_int64),
        ("rows", POINTER(c_int64)),
    )


class _Own(ctypes.Structure):
    _fields_ = (
        ("keys", POINTER(c_void_p)),
        ("values", POINTER(c_void_p)),
        ("capacity", c_int64),
        ("lengths", POINTER(c_int64)),
    )


class NativePass:
    """Passes over one token of each row through the semantic expert and the language head, on a CPU.

    It keeps nothing of a pass: several threads may use it at once, each with memory of its own.

    Args:
        network: with the parts that write text; their weights are read where they lie, and must stay there
            unchanged.
        plain: by the forms that every processor runs.

    Raises:
        NativeUnavailableError: there is no library on this machine.
        CheckpointError: heads that the library does not take.
    """

    def __init__(self, network: G2VLM, *, plain: bool = False) -> None:
        self._library = load_library(plain=plain)
        # The sources may have been replaced since this program began.
        network_size = ctypes.sizeof(_Network) + ctypes.sizeof(_Layer)
        if (self._library.g2vlm_size_of_network(), self._library.g2vlm_size_of_memory()) != (
            network_size,
            ctypes.sizeof(_Segment) + ctypes.sizeof(_Own),
        ):
            raise RuntimeError("The installed g2vlm changed while this program runs: start it again.")
        mixture, embedding, language_head = network.mixture, network.embedding, network.language_head
        assert isinstance(mixture, Mixture)
        assert isinstance(embedding, nn.Embedding)
        assert language_head is not None
        config = mixture.config
        if config.head_dim > MAX_HEAD_DIM or config.num_heads // config.num_kv_heads > MAX_GROUP:
            raise CheckpointError(
                f"Expected heads of {MAX_HEAD_DIM} channels and groups of {MAX_GROUP} heads at most for "
                f"compiled answers, got {config.head_dim} and {config.num_heads // config.num_kv_heads}: "
                "load the checkpoint with compiled=False (--compiled off)."
            )
        self._vocabulary = embedding.num_embeddings
        self._dtype = mixture.semantic_norm.weight.dtype
        self._max_rows = self._most_rows(
            {layer.matrix.c.kind for layer in mixture.modules() if isinstance(layer, NativeLinear)}
        )
        self._kept: list[Tensor | StoredMatrix] = []
        experts: list[ExpertLayer] = [layer.semantic for layer in mixture.layers]  # type: ignore[misc]
        self._layers = (_Layer * len(experts))(*(self._layer(expert) for expert in experts))
        self._network = _Network(
            config.num_layers,
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
            int(self._dtype == torch.bfloat16),
            config.norm_eps,
            config.width,
            config.mlp_width,
            self._layers,
            self._numbers(mixture.semantic_norm.weight),
            self._matrix(language_head),
            self._numbers(embedding.weight, self._dtype),
            self._numbers(text_frequencies(config.rope_sections, config.rope_theta)),
        )

    def _most_rows(self, kinds: set[int]) -> int:
        features = self._library.g2vlm_features()
        if PACKED in kinds and features & FAST_TILES:
            return MAX_ROWS_BY_TILES
        if kinds - {PACKED}:
            return MAX_ROWS_QUANTIZED if features & FAST_INTEGER else 1
        return MAX_ROWS if features & FAST_BFLOAT16 and self._dtype == torch.bfloat16 else 1

    def _layer(self, expert: ExpertLayer) -> _Layer:
        linears = (expert.qkv, expert.out, expert.mlp.gate_up, expert.mlp.down)
        norms = (expert.attention_norm, expert.query_norm, expert.key_norm, expert.mlp_norm)
        return _Layer(*map(self._matrix, linears), *(self._numbers(norm.weight) for norm in norms))

    def _matrix(self, layer: nn.Module) -> CMatrix:
        """A linear layer in whatever format it stores its weight."""
        if isinstance(layer, NativeLinear):
            matrix = layer.matrix
        elif isinstance(layer, nn.Linear):
            matrix = StoredMatrix.of_floats(layer.weight, layer.bias)
        else:
            raise TypeError(f"Expected a layer that the library can read, got {type(layer).__name__}.")
        self._kept.append(matrix)
        return matrix.c

    def _numbers(self, tensor: Float[Tensor, "*any"], dtype: torch.dtype = torch.float32) -> int:
        """Where numbers lie; a copy if they are of another type."""
        self._kept.append(kept := contiguous(tensor, dtype))
        return kept.data_ptr()

    def __call__(
        self, tokens: Int[Tensor, " rows"], positions: Int[Tensor, " rows"], cache: RowCache
    ) -> NextTokens:
        """Read one more text token of each row.

        Args:
            tokens: their ids.
            positions: the same along all axes.
            cache: one that it `can_read`, with room for one more token; keys and values are stored there, its
                lengths stay.

        Raises:
            ValueError: the cache does not fit or is full, or there is no such token.
        """
        ids, places = tokens.tolist(), positions.tolist()
        count, room, longest = len(ids), cache.capacity[1], max(cache.lengths, default=0)
        beyond = not ids or max(ids) >= self._vocabulary or min(ids) < 0
        # C would read and write wherever it is told to.
        if beyond or longest >= room or not self.can_read(cache) or count != cache.num_rows:
            raise ValueError(
                f"Expected a token below {self._vocabulary} for each row of a fitting cache with room, got "
                f"{ids} for {cache.num_rows} rows, {longest} of {room} filled."
            )
        numbers, segments = c_int64 * count, _segments(cache.readers)
        logits = torch.empty(count, self._network.language_head.rows)
        choices, chances = torch.empty(count, dtype=torch.long), torch.empty(count)
        failed = self._library.g2vlm_decode(
            byref(self._network),
            count,
            numbers(*ids),
            numbers(*places),
            len(segments),
            segments,
            byref(_own(cache)),
            logits.data_ptr(),
            choices.data_ptr(),
            chances.data_ptr(),
            torch.get_num_threads(),
        )
        if failed:
            raise MemoryError("Expected a few megabytes for a pass over one token, got none.")
        return NextTokens(logits, choices, chances)

    def fits(self, cache: RowCache) -> bool:
        """Whether this is the way to continue texts: they can be read, and are few."""
        return self.can_read(cache) and cache.num_rows <= self._max_rows

    def can_read(self, cache: RowCache) -> bool:
        """Whether memory is in this network's format, on the CPU."""
        segments = [reader.segment for reader in cache.readers]
        kinds = {(cache.dtype, cache.device.type)} | {(s.keys.dtype, s.keys.device.type) for s in segments}
        # Channels must lie one behind the other, and tokens likewise; values as keys do.
        dense = all(
            s.keys.stride() == s.values.stride() and s.keys.stride()[2:] == (cache.shape.head_dim, 1)
            for s in segments
        )
        return kinds == {(self._dtype, "cpu")} and dense


def _segments(readers: tuple[Readers, ...]) -> "ctypes.Array[_Segment]":
    """What several rows read; the tensors stay alive through the cache."""
    found = (_Segment * len(readers))()
    for segment, reader in zip(found, readers, strict=True):
        keys, values = reader.segment.keys, reader.segment.values
        segment.keys, segment.values = keys.data_ptr(), values.data_ptr()
        segment.length, segment.num_rows = reader.segment.num_tokens, len(reader.rows)
        segment.layer_stride, segment.head_stride = keys.stride()[:2]
        segment.rows = (c_int64 * len(reader.rows))(*reader.rows)
    return found


def _own(cache: RowCache) -> _Own:
    keys, values = ((c_void_p * len(kind))(*(layer.data_ptr() for layer in kind)) for kind in cache.buffers)
    return _Own(keys, values, cache.capacity[1], (c_int64 * cache.num_rows)(*cache.lengths))
