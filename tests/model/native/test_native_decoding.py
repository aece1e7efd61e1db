"""Whole passes in C against the same passes in torch."""

from collections.abc import Sequence

import pytest
import torch
from random_weights import fill_randomly

from g2vlm.errors import CheckpointError
from g2vlm.model.cache import CacheShape, Segment
from g2vlm.model.config import G2VLMConfig, MixtureConfig, Part
from g2vlm.model.native import decoding
from g2vlm.model.native.decoding import MAX_ROWS, MAX_ROWS_BY_TILES, MAX_ROWS_QUANTIZED, NativePass
from g2vlm.model.native.library import FAST_BFLOAT16, FAST_INTEGER, FAST_TILES, load_library
from g2vlm.model.network import G2VLM
from g2vlm.model.precision import Precision, cast_
from g2vlm.model.quantization import Quantization, quantize_language_
from g2vlm.model.row_cache import Prefill, RowCache

pytestmark = pytest.mark.needs_compiler

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


def segment_of(network: G2VLM, length: int, precision: Precision, seed: int = 0) -> Segment:
    """Random keys and values, of which only some lie beside each other, as in a block with room."""
    config = network.config.mixture
    size = (config.num_layers, config.num_kv_heads, length + 7, config.head_dim)
    generator = torch.Generator().manual_seed(100 * length + seed)
    keys, values = (torch.randn(size, generator=generator).to(precision.dtype) for _ in range(2))
    for buffer in (keys, values):
        # What is not filled must not matter, whatever it is.
        buffer[:, :, length:] = torch.nan
    return Segment(keys[:, :, :length], values[:, :, :length])


def rows_of(
    network: G2VLM, lengths: Sequence[int], beginnings: Sequence[tuple[Segment, ...]], precision: Precision
) -> RowCache:
    """A cache of rows that have read that many random tokens of their own."""
    shape = CacheShape.of(network.config.mixture)
    cache = RowCache(shape, precision.dtype, "cpu")
    generator = torch.Generator().manual_seed(len(lengths))
    prefill = Prefill(beginnings, lengths, torch.device("cpu"))
    size = (len(lengths), shape.num_kv_heads, max(lengths), shape.head_dim)
    for layer in range(shape.num_layers):
        keys, values = (torch.randn(size, generator=generator).to(precision.dtype) for _ in range(2))
        prefill.store(layer, [(keys, values)])
    cache.join(prefill)
    return cache


def texts(
    network: G2VLM, lengths: Sequence[int], before: int, precision: Precision, count: int = 1
) -> list[RowCache]:
    """The same cache that many times: rows behind one beginning."""
    beginning = (segment_of(network, before, precision),) if before else ()
    return [rows_of(network, lengths, [beginning] * len(lengths), precision) for _ in range(count)]


def passes(network: G2VLM, cache: RowCache, native: NativePass | None) -> torch.Tensor:
    """The logits of two passes, one behind the other."""
    found = []
    for token in (3, 17):
        tokens = torch.arange(cache.num_rows) + token
        positions = torch.tensor(cache.lengths) + 40
        cache.reserve()
        if native is None:
            found.append(network.decode(tokens, network.text_rotation(positions), cache))
        else:
            assert native.can_read(cache)
            found.append(native(tokens, positions, cache).logits)
        cache.advance()
    return torch.cat(found).double()


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize(("before", "own"), [(0, 1), (5, 3), (1300, 2), (0, 700)])
@torch.inference_mode()
def test_passes_in_float32_are_those_of_torch(shape, before, own, plain):
    network = network_of(shape, Precision.FLOAT32)
    caches = texts(network, [own], before, Precision.FLOAT32, 2)
    expected = passes(network, caches[0], None)
    found = passes(network, caches[1], NativePass(network, plain=plain))
    assert (found - expected).norm() <= 2e-5 * expected.norm()
    for kinds in zip(caches[1].buffers, caches[0].buffers, strict=True):
        for mine, other in zip(*kinds, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("before", [1, 700])
@torch.inference_mode()
def test_passes_in_bfloat16_are_as_near_the_truth_as_those_of_torch(shape, before, plain):
    network = network_of(shape, Precision.BFLOAT16)
    wide = network_of(shape, Precision.BFLOAT16).float()
    narrow, other = texts(network, [3], before, Precision.BFLOAT16, 2)
    wider = RowCache(narrow.shape, torch.float32, "cpu")
    prefill = Prefill([tuple(widened(one) for one in narrow.beginnings[0])], [3], torch.device("cpu"))
    for layer, pair in enumerate(zip(*narrow.buffers, strict=True)):
        prefill.store(layer, [tuple(kind[:1, :, :3].float() for kind in pair)])
    wider.join(prefill)
    truth = passes(wide, wider, None)
    found = passes(network, narrow, NativePass(network, plain=plain))
    torch_error = (passes(network, other, None) - truth).norm()
    assert (found - truth).norm() <= 1.5 * torch_error
    assert torch_error <= 0.05 * truth.norm()


def widened(segment: Segment) -> Segment:
    return Segment(segment.keys.float(), segment.values.float())


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("quantization", [Quantization.PACKED, Quantization.INT8, Quantization.INT4])
@torch.inference_mode()
def test_passes_over_fewer_bits_are_those_of_torch(quantization, precision):
    network = network_of("as released", precision, quantization)
    caches = texts(network, [4], 9, precision, 2)
    expected = passes(network, caches[0], None)
    found = passes(network, caches[1], NativePass(network))
    tolerance = 1e-3 if precision is Precision.FLOAT32 else 0.03
    assert (found - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("quantization", list(Quantization))
@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("rows", [1, 3, 6])
@torch.inference_mode()
def test_rows_of_any_length_and_beginning_are_those_of_torch(rows, precision, quantization, plain):
    network = network_of("as released", precision, quantization)
    photos, others, turn = (segment_of(network, length, precision) for length in (600, 30, 520))
    kinds = [(photos,), (photos, turn), (others,), (), (photos,), (others, turn)]
    lengths = [5, 1, 700, 2, 9, 128]
    caches = [rows_of(network, lengths[:rows], kinds[:rows], precision) for _ in range(2)]
    expected = passes(network, caches[0], None)
    found = passes(network, caches[1], NativePass(network, plain=plain))
    tolerance = 0.03 if precision is Precision.BFLOAT16 else 1e-3 if quantization.value != "none" else 2e-5
    # Each row by itself: a fault in one of them must not drown in the others.
    for own, other in zip(found, expected, strict=True):
        assert (own - other).norm() <= tolerance * other.norm()


@pytest.mark.parametrize("rows", [1, 4])
@torch.inference_mode()
def test_choices_and_their_probabilities_are_those_of_the_logits(rows):
    network = network_of("as released", Precision.FLOAT32)
    (cache,) = texts(network, [2] * rows, 40, Precision.FLOAT32)
    cache.reserve()
    found = NativePass(network)(torch.arange(rows) + 5, torch.arange(rows) + 60, cache)
    assert torch.equal(found.choices, found.logits.argmax(dim=-1))
    expected = found.logits.double().log_softmax(dim=-1).amax(dim=-1)
    torch.testing.assert_close(found.log_probabilities.double(), expected, rtol=0, atol=2e-6)


@torch.inference_mode()
def test_only_rows_in_the_same_format_fit():
    network = network_of("small heads", Precision.FLOAT32)
    native = NativePass(network)
    (one,), (two,) = (texts(network, [1] * rows, 8, Precision.FLOAT32) for rows in (1, 2))
    assert native.can_read(one)
    assert native.fits(one)
    assert native.can_read(two)
    assert not native.fits(two), "float32 products of several rows are torch's"
    (narrow,) = texts(network, [1], 8, Precision.BFLOAT16)
    assert not native.can_read(narrow)
    mixed = rows_of(network, [1], [(segment_of(network, 8, Precision.BFLOAT16),)], Precision.FLOAT32)
    assert not native.can_read(mixed)
    segment = segment_of(network, 8, Precision.FLOAT32)
    apart = Segment(*(kind.mT.contiguous().mT for kind in (segment.keys, segment.values)))
    assert not native.can_read(rows_of(network, [1], [(apart,)], Precision.FLOAT32))


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
    for plain in (True, False):
        native = NativePass(network, plain=plain)
        features = load_library(plain=plain).g2vlm_features()
        expected = next((rows for bit, rows in most if features & bit), 1)
        fitting = [
            rows for rows in range(1, 50) if native.fits(texts(network, [1] * rows, 0, Precision.BFLOAT16)[0])
        ]
        assert fitting == list(range(1, expected + 1))


@torch.inference_mode()
def test_what_would_be_read_or_written_out_of_place_is_refused():
    network = network_of("small heads", Precision.FLOAT32)
    native, place = NativePass(network), torch.tensor([0])
    (cache,) = texts(network, [1], 0, Precision.FLOAT32)
    for token in (-1, SHAPES["small heads"].vocab_size):
        with pytest.raises(ValueError, match=rf"got \[{token}\]"):
            native(torch.tensor([token]), place, cache)
    with pytest.raises(ValueError, match="2 rows"):
        native(place, place, texts(network, [1, 1], 0, Precision.FLOAT32)[0])
    with pytest.raises(ValueError, match="a fitting cache"):
        native(place, place, texts(network, [1], 0, Precision.BFLOAT16)[0])
    cache.lengths = [cache.capacity[1]]
    with pytest.raises(ValueError, match="128 of 128 filled"):
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
