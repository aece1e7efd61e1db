"""Whole passes in C against the same passes in torch."""

import pytest
import torch
from random_weights import fill_randomly

from g2vlm.errors import CheckpointError
from g2vlm.model.cache import CacheShape, KeyValueCache
from g2vlm.model.config import G2VLMConfig, MixtureConfig, Part
from g2vlm.model.native import decoding
from g2vlm.model.native.decoding import MAX_ROWS, MAX_ROWS_BY_TILES, MAX_ROWS_QUANTIZED, NativePass
from g2vlm.model.native.library import FAST_BFLOAT16, FAST_INTEGER, FAST_TILES, load_library
from g2vlm.model.network import G2VLM
from g2vlm.model.precision import Precision, cast_
from g2vlm.model.quantization import Quantization, quantize_language_

SHAPES = {
    "as released": MixtureConfig(
        vocab_size=97, width=192, mlp_width=224, num_layers=2, num_heads=6, num_kv_heads=1
    ),
    "groups of three": MixtureConfig(
        vocab_size=50,
        width=64,
        mlp_width=96,
        num_layers=3,
        num_heads=6,
        num_kv_heads=2,
        head_dim=32,
        rope_sections=(4, 6, 6),
    ),
    "small heads": MixtureConfig(
        vocab_size=33,
        width=64,
        mlp_width=80,
        num_layers=1,
        num_heads=3,
        num_kv_heads=3,
        head_dim=16,
        rope_sections=(2, 3, 3),
    ),
}
PARTS = frozenset({Part.MIXTURE, Part.LANGUAGE_HEAD})


def network_of(shape: str, precision: Precision, quantization: Quantization = Quantization.NONE) -> G2VLM:
    network = fill_randomly(G2VLM(G2VLMConfig(mixture=SHAPES[shape]), PARTS))
    cast_(network, precision)
    quantize_language_(network, quantization, native=True)
    return network


def memory_of(network: G2VLM, length: int, precision: Precision) -> KeyValueCache:
    """A cache with room for three more tokens."""
    shape = CacheShape.of(network.config.mixture)
    cache = KeyValueCache(shape, length + 3, dtype=precision.dtype)
    generator = torch.Generator().manual_seed(length)
    for buffer in cache.buffers:
        # What is not filled must not matter, whatever it is.
        buffer.fill_(torch.nan)[:, :, :, :length] = torch.randn(
            *buffer.shape[:3], length, buffer.shape[4], generator=generator
        )
    cache.length = length
    return cache


def passes(network: G2VLM, cache: KeyValueCache, native: NativePass | None) -> torch.Tensor:
    """The logits of two passes, one behind the other."""
    rows = []
    for token in (3, 17):
        position = 40 + cache.length
        if native is None:
            rotation = network.text_rotation(torch.tensor([position]))
            rows.append(network.decode(torch.tensor([token]), rotation, cache))
        else:
            assert native.fits(cache)
            rows.append(native(torch.tensor([token]), torch.tensor([position]), cache))
        cache.advance(1)
    return torch.cat(rows).double()


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("length", [0, 5, 1300])
@torch.inference_mode()
def test_passes_in_float32_are_those_of_torch(shape, length, plain):
    network = network_of(shape, Precision.FLOAT32)
    caches = [memory_of(network, length, Precision.FLOAT32) for _ in range(2)]
    expected = passes(network, caches[0], None)
    found = passes(network, caches[1], NativePass(network, plain=plain))
    assert (found - expected).norm() <= 2e-5 * expected.norm()
    for own, other in zip(caches[1].buffers, caches[0].buffers, strict=True):
        filled = slice(length + 2)
        torch.testing.assert_close(own[:, :, :, filled], other[:, :, :, filled], rtol=1e-4, atol=1e-4)
        assert own[:, :, :, length + 2 :].isnan().all()


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("length", [1, 700])
@torch.inference_mode()
def test_passes_in_bfloat16_are_as_near_the_truth_as_those_of_torch(shape, length, plain):
    network = network_of(shape, Precision.BFLOAT16)
    wide = network_of(shape, Precision.BFLOAT16).float()
    memory = memory_of(network, length, Precision.BFLOAT16)
    wider = KeyValueCache(memory.shape, length + 3)
    for own, other in zip(wider.buffers, memory.buffers, strict=True):
        own.copy_(other)
    wider.length = length
    truth = passes(wide, wider, None)
    found = passes(network, memory, NativePass(network, plain=plain))
    memory.truncate(length)
    torch_error = (passes(network, memory, None) - truth).norm()
    assert (found - truth).norm() <= 1.5 * torch_error
    assert torch_error <= 0.05 * truth.norm()


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("quantization", [Quantization.PACKED, Quantization.INT8, Quantization.INT4])
@torch.inference_mode()
def test_passes_over_fewer_bits_are_those_of_torch(quantization, precision):
    network = network_of("as released", precision, quantization)
    caches = [memory_of(network, 9, precision) for _ in range(2)]
    expected = passes(network, caches[0], None)
    found = passes(network, caches[1], NativePass(network))
    tolerance = 1e-3 if precision is Precision.FLOAT32 else 0.03
    assert (found - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("quantization", list(Quantization))
@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("rows", [1, 3, 6])
@torch.inference_mode()
def test_rows_that_share_a_beginning_are_those_of_torch(rows, precision, quantization, plain):
    network = network_of("as released", precision, quantization)
    trunk = memory_of(network, 600, precision)
    padding = torch.arange(rows) % 4
    branches = [trunk.branch(rows, 12, padding) for _ in range(2)]
    for branch in branches:
        for buffer in branch.buffers:
            generator = torch.Generator().manual_seed(1)
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
        branch.length = 5
    native, tokens = NativePass(network, plain=plain), torch.arange(rows) + 7
    for step in range(2):
        positions = torch.arange(rows) + 600 + step
        expected = network.decode(tokens, network.text_rotation(positions), branches[0]).double()
        found = native(tokens, positions, branches[1]).double()
        tolerance = (
            0.03 if precision is Precision.BFLOAT16 else 1e-3 if quantization.value != "none" else 2e-5
        )
        assert (found - expected).norm() <= tolerance * expected.norm()
        for branch in branches:
            branch.advance(1)


@torch.inference_mode()
def test_only_memories_of_one_sequence_in_the_same_format_fit():
    network = network_of("small heads", Precision.FLOAT32)
    native, shape = NativePass(network), CacheShape.of(network.config.mixture)
    one = KeyValueCache(shape, 8)
    assert native.can_read(one)
    assert native.fits(one)
    assert not native.fits(KeyValueCache(shape, 8, batch=2))
    assert not native.fits(KeyValueCache(shape, 8, dtype=torch.bfloat16))
    two = one.branch(2, 4, torch.zeros(2, dtype=torch.long))
    assert native.can_read(two)
    assert not native.fits(two), "float32 products of several rows are torch's"


@pytest.mark.parametrize(
    ("quantization", "most"),
    [
        (Quantization.NONE, ((FAST_BFLOAT16, MAX_ROWS),)),
        # Packed weights without a matrix unit are multiplied as bfloat16 is.
        (Quantization.PACKED, ((FAST_TILES, MAX_ROWS_BY_TILES), (FAST_BFLOAT16, MAX_ROWS))),
        (Quantization.INT8, ((FAST_INTEGER, MAX_ROWS_QUANTIZED),)),
    ],
)
@torch.inference_mode()
def test_rows_are_few_where_there_are_instructions_for_them(quantization, most):
    network = network_of("small heads", Precision.BFLOAT16, quantization)
    one = KeyValueCache(CacheShape.of(network.config.mixture), 8, dtype=torch.bfloat16)
    for plain in (True, False):
        native = NativePass(network, plain=plain)
        features = load_library(plain=plain).g2vlm_features()
        expected = next((rows for bit, rows in most if features & bit), 1)
        fitting = [
            rows
            for rows in range(1, 50)
            if native.fits(one.branch(rows, 4, torch.zeros(rows, dtype=torch.long)))
        ]
        assert fitting == list(range(1, expected + 1))


@torch.inference_mode()
def test_what_would_be_read_or_written_out_of_place_is_refused():
    network = network_of("small heads", Precision.FLOAT32)
    native, cache = NativePass(network), memory_of(network, 0, Precision.FLOAT32)
    place = torch.tensor([0])
    for token in (-1, SHAPES["small heads"].vocab_size):
        with pytest.raises(ValueError, match=rf"got \[{token}\]"):
            native(torch.tensor([token]), place, cache)
    branch = cache.branch(2, 8, torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="2 rows"):
        native(place, place, branch)
    with pytest.raises(ValueError, match="a fitting cache"):
        native(place, place, KeyValueCache(cache.shape, 8, batch=2))
    cache.length = cache.capacity
    with pytest.raises(ValueError, match="3 of 3 filled"):
        native(place, place, cache)


def test_networks_beyond_the_library_are_told_what_to_do(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_HEAD_DIM", 8)
    with pytest.raises(CheckpointError, match=r"got 16 and 1: load .* \(--compiled off\)"):
        NativePass(network_of("small heads", Precision.FLOAT32))


def test_layers_that_the_library_cannot_read_are_named():
    network = network_of("small heads", Precision.FLOAT32)
    network.language_head = torch.nn.Identity()
    with pytest.raises(TypeError, match="got Identity"):
        NativePass(network)
