"""The mixture against a slow reference: reading order, a dense mask, both experts for every token."""

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_weights import fill_randomly
from torch import Tensor

from g2vlm.inference.prompts import layout_of
from g2vlm.inputs.spans import AttentionRule, Expert, ImageTokens, Span, SpanBuilder
from g2vlm.model.cache import CacheShape, KeyValueCache
from g2vlm.model.config import MixtureConfig, g2vlm_test
from g2vlm.model.layout import Block, Layout, Streams
from g2vlm.model.mixture import ExpertLayer, Mixture, MixtureLayer

ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)

CONFIG = g2vlm_test().mixture
TOLERANCE = 2e-6
"""Of the largest magnitude, for the same arithmetic in another order."""


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    return fill_randomly(Mixture(CONFIG))


def prompt(*, one_block: bool, views: int = 3, grid: tuple[int, int] = (2, 3)) -> list[Span]:
    """Text, geometric views, semantic views, text: everything that a chat holds."""
    builder = SpanBuilder(ImageTokens(1, 2))
    builder.text([5, 6, 7]).geometric_views(views, *grid, one_block=one_block)
    return builder.semantic_views(2, 2, 1).text([8, 9, 3, 4]).spans


def normal(num_tokens: int, seed: int = 0, batch: int = 1) -> Tensor:
    return torch.randn(batch, num_tokens, CONFIG.width, generator=torch.Generator().manual_seed(seed))


class DenseReference:
    """Formula by formula as the specification of a layer states it, in float64, nothing sorted."""

    def __init__(self, mixture: Mixture, spans: list[Span]) -> None:
        self.mixture = mixture
        self.config: MixtureConfig = mixture.config
        repeats = torch.tensor([span.num_tokens for span in spans])

        def of_tokens(values: list[int]) -> Tensor:
            return torch.tensor(values).repeat_interleave(repeats)

        self.is_geometric = of_tokens([int(span.expert is Expert.GEOMETRIC) for span in spans]).bool()
        block = of_tokens([span.block for span in spans])
        causal = of_tokens([int(span.rule is AttentionRule.CAUSAL) for span in spans]).bool()
        self.positions = torch.cat([span.positions for span in spans], dim=1)
        index = torch.arange(len(block))
        same = block[:, None] == block
        inside = same & (~causal[:, None] | (index[:, None] >= index))
        self.visible = inside | (block[:, None] > block)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.double()
        for layer in self.mixture.layers:
            x = self._advance(layer, x)
        norms = (self.mixture.semantic_norm, self.mixture.geometric_norm)
        return self._pick(norms, lambda norm: self._norm(x, norm))

    def _advance(self, layer: MixtureLayer, x: Tensor) -> Tensor:
        experts = (layer.semantic, layer.geometric)
        attended = self._attend(layer, x)
        h = x + self._pick(experts, lambda e: self._scaled(e.attention_scale, attended @ weight(e.out).T))
        return h + self._pick(experts, lambda e: self._scaled(e.mlp_scale, self._feed_forward(e, h)))

    def _pick(self, experts: tuple[ModuleT, ModuleT], compute: Callable[[ModuleT], Tensor]) -> Tensor:
        semantic, geometric = (compute(expert) for expert in experts)
        return torch.where(self.is_geometric[:, None], geometric, semantic)

    def _norm(self, x: Tensor, norm: torch.nn.Module) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + self.config.norm_eps).sqrt() * norm.weight.double()

    def _scaled(self, scale: torch.nn.Module | None, update: Tensor) -> Tensor:
        return update if scale is None else update * scale.gamma.double()

    def _feed_forward(self, expert: ExpertLayer, x: Tensor) -> Tensor:
        gate, up = (self._norm(x, expert.mlp_norm) @ weight(expert.mlp.gate_up).T).chunk(2, dim=-1)
        return (gate * gate.sigmoid() * up) @ weight(expert.mlp.down).T

    def _attend(self, layer: MixtureLayer, x: Tensor) -> Tensor:
        config = self.config
        experts = (layer.semantic, layer.geometric)
        qkv = self._pick(
            experts, lambda e: self._norm(x, e.attention_norm) @ weight(e.qkv).T + e.qkv.bias.double()
        )
        heads = qkv.unflatten(-1, (-1, config.head_dim)).transpose(0, 1)
        q, k, v = heads.split((config.num_heads, config.num_kv_heads, config.num_kv_heads))
        q = self._rotate(self._pick(experts, lambda e: self._norm(q, e.query_norm)))
        k = self._rotate(self._pick(experts, lambda e: self._norm(k, e.key_norm)))
        group = config.num_heads // config.num_kv_heads
        scores = q @ k.repeat_interleave(group, 0).mT * config.head_dim**-0.5
        weights = scores.masked_fill(~self.visible, -torch.inf).softmax(-1)
        return (weights @ v.repeat_interleave(group, 0)).transpose(0, 1).flatten(1)

    def _rotate(self, x: Tensor) -> Tensor:
        config = self.config
        half = config.head_dim // 2
        axis = torch.arange(3).repeat_interleave(torch.tensor(config.rope_sections))
        frequency = torch.tensor([config.rope_theta ** (-i / half) for i in range(half)], dtype=torch.float64)
        angle = self.positions[axis].T.double() * frequency
        turned = torch.complex(x[..., :half], x[..., half:]) * torch.exp(1j * angle)
        return torch.cat([turned.real, turned.imag], dim=-1)


def weight(linear: torch.nn.Module) -> Tensor:
    return linear.weight.double()


def sort_by_expert(x: Tensor, is_geometric: Tensor) -> Streams:
    return Streams(x[:, ~is_geometric], x[:, is_geometric])


def assert_close(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    assert found.shape == expected.shape
    if not expected.numel():
        return
    assert float((found - expected).abs().max() / expected.abs().max()) <= tolerance


def assert_streams_close(found: Streams, expected: Streams) -> None:
    assert_close(found.semantic, expected.semantic)
    assert_close(found.geometric, expected.geometric)


@pytest.mark.parametrize("one_block", [True, False], ids=["global", "causal"])
def test_sorted_by_expert_equals_unsorted_with_a_dense_mask(mixture: Mixture, one_block: bool) -> None:
    spans = prompt(one_block=one_block)
    reference = DenseReference(mixture, spans)
    x = normal(len(reference.is_geometric))
    found = mixture(sort_by_expert(x, reference.is_geometric), layout_of(spans))
    expected = reference(x[0])[None].float()
    assert_streams_close(found, sort_by_expert(expected, reference.is_geometric))


@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_any_prompt_equals_the_dense_reference(mixture: Mixture, data: st.DataObject) -> None:
    builder = SpanBuilder(ImageTokens(1, 2), position=data.draw(st.integers(0, 9)))
    small = st.integers(1, 3)
    for _ in range(data.draw(small)):
        kind = data.draw(st.sampled_from(["text", "global", "causal", "semantic"]))
        if kind == "text":
            builder.text([0] * data.draw(small))
        elif kind == "semantic":
            builder.semantic_views(data.draw(small), data.draw(small), data.draw(small))
        else:
            one_block = kind == "global"
            builder.geometric_views(data.draw(small), data.draw(small), data.draw(small), one_block=one_block)
    reference = DenseReference(mixture, builder.spans)
    x = normal(len(reference.is_geometric), seed=1)
    found = mixture(sort_by_expert(x, reference.is_geometric), layout_of(builder.spans))
    assert_streams_close(found, sort_by_expert(reference(x[0])[None].float(), reference.is_geometric))


def run_in_pieces(
    mixture: Mixture, streams: Streams, layout: Layout, cache: KeyValueCache, *, by_token: bool
) -> Streams:
    """Feed every block alone; with `by_token`, text runs token by token."""
    outputs: list[Streams] = []
    for place in layout.placements():
        pieces = [(place.block, place.semantic, place.geometric)]
        if by_token and place.block.causal:
            one = Block(1, 0, causal=True)
            pieces = [
                (one, slice(i, i + 1), place.geometric)
                for i in range(place.semantic.start, place.semantic.stop)
            ]
        for block, s, g in pieces:
            part = Layout((block,), layout.semantic_positions[..., s], layout.geometric_positions[..., g])
            fed = Streams(streams.semantic[:, s], streams.geometric[:, g])
            outputs.append(mixture(fed, part, cache))
    return Streams(
        torch.cat([out.semantic for out in outputs], dim=1),
        torch.cat([out.geometric for out in outputs], dim=1),
    )


@pytest.mark.parametrize("by_token", [False, True], ids=["blocks", "tokens"])
@pytest.mark.parametrize("growing", [False, True], ids=["static", "growing"])
@pytest.mark.parametrize("one_block", [True, False], ids=["global", "causal"])
def test_cached_pieces_equal_one_pass_without_a_cache(
    mixture: Mixture, one_block: bool, growing: bool, by_token: bool
) -> None:
    spans = prompt(one_block=one_block)
    layout = layout_of(spans)
    is_geometric = DenseReference(mixture, spans).is_geometric
    streams = sort_by_expert(normal(len(is_geometric), batch=2), is_geometric)
    capacity = 1 if growing else layout.num_tokens
    cache = KeyValueCache(CacheShape.of(CONFIG), capacity, batch=2, growing=growing)
    found = run_in_pieces(mixture, streams, layout, cache, by_token=by_token)
    assert cache.length == layout.num_tokens
    assert_streams_close(found, mixture(streams, layout))


def test_one_cached_pass_equals_one_without(mixture: Mixture) -> None:
    layout = layout_of(prompt(one_block=True))
    streams = Streams(
        normal(layout.semantic_positions.shape[1]), normal(layout.geometric_positions.shape[1], seed=1)
    )
    cache = KeyValueCache(CacheShape.of(CONFIG), layout.num_tokens)
    assert_streams_close(mixture(streams, layout, cache), mixture(streams, layout))


def test_a_view_in_causal_order_does_not_depend_on_later_views(mixture: Mixture) -> None:
    spans = prompt(one_block=False)
    layout = layout_of(spans)
    streams = Streams(
        normal(layout.semantic_positions.shape[1]), normal(layout.geometric_positions.shape[1], seed=1)
    )
    changed = streams.geometric.clone()
    changed[:, 6:] += 1.0  # the second and third of three views of six patches
    before, after = mixture(streams, layout), mixture(Streams(streams.semantic, changed), layout)
    assert torch.equal(before.geometric[:, :6], after.geometric[:, :6])
    assert float((before.geometric[:, 6:] - after.geometric[:, 6:]).abs().max()) > 1e-2


def test_in_global_order_every_view_depends_on_every_other(mixture: Mixture) -> None:
    layout = layout_of(prompt(one_block=True))
    streams = Streams(
        normal(layout.semantic_positions.shape[1]), normal(layout.geometric_positions.shape[1], seed=1)
    )
    changed = streams.geometric.clone()
    changed[:, 12:] += 1.0
    before, after = mixture(streams, layout), mixture(Streams(streams.semantic, changed), layout)
    assert float((before.geometric[:, :6] - after.geometric[:, :6]).abs().max()) > 1e-3


def test_sequences_of_a_batch_do_not_meet(mixture: Mixture) -> None:
    layout = layout_of(prompt(one_block=True))
    sizes = layout.semantic_positions.shape[1], layout.geometric_positions.shape[1]
    both = Streams(normal(sizes[0], 3, batch=2), normal(sizes[1], 4, batch=2))
    together = mixture(both, layout)
    for i in range(2):
        alone = mixture(Streams(both.semantic[i : i + 1], both.geometric[i : i + 1]), layout)
        assert_streams_close(Streams(together.semantic[i : i + 1], together.geometric[i : i + 1]), alone)


def test_a_full_static_cache_refuses_and_stays_as_it_was(mixture: Mixture) -> None:
    layout = Layout((Block(4, 0, causal=True),), torch.zeros(3, 4).long(), torch.zeros(3, 0).long())
    cache = KeyValueCache(CacheShape.of(CONFIG), 6)
    streams = Streams(normal(4), normal(0))
    mixture(streams, layout, cache)
    with pytest.raises(ValueError, match="holds 6 tokens"):
        mixture(streams, layout, cache)
    assert cache.length == 4


def test_checkpointing_changes_neither_values_nor_gradients(mixture: Mixture) -> None:
    layout = layout_of(prompt(one_block=False))
    sizes = layout.semantic_positions.shape[1], layout.geometric_positions.shape[1]
    gradients = []
    for checkpointing in (False, True):
        trained = fill_randomly(Mixture(CONFIG)).requires_grad_(True)
        trained.checkpointing = checkpointing
        out = trained(Streams(normal(sizes[0]), normal(sizes[1], 1)), layout)
        (out.semantic.square().sum() + out.geometric.sin().sum()).backward()
        gradients.append({name: p.grad for name, p in trained.named_parameters()})
    for name, plain in gradients[0].items():
        assert plain is not None, name
        assert_close(gradients[1][name], plain)


def test_the_language_loss_reaches_both_experts_and_geometry_alone_needs_no_semantic_mlp() -> None:
    """Shared attention couples the experts; the last semantic MLP feeds semantic tokens only."""
    trained = fill_randomly(Mixture(CONFIG)).requires_grad_(True)
    layout = layout_of(prompt(one_block=True))
    sizes = layout.semantic_positions.shape[1], layout.geometric_positions.shape[1]
    out = trained(Streams(normal(sizes[0]), normal(sizes[1], 1)), layout)
    out.geometric.square().sum().backward()
    last = trained.layers[-1]
    assert float(trained.layers[0].semantic.mlp.down.weight.grad.abs().sum()) > 0
    assert last.semantic.mlp.down.weight.grad is None
    assert float(last.semantic.qkv.weight.grad.abs().sum()) > 0


def test_residual_streams_stay_in_float32_in_a_bfloat16_network() -> None:
    rounded = fill_randomly(Mixture(CONFIG)).bfloat16()
    layout = layout_of(prompt(one_block=True))
    seen: list[Streams] = []
    for layer in rounded.layers:
        layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    sizes = layout.semantic_positions.shape[1], layout.geometric_positions.shape[1]
    out = rounded(Streams(normal(sizes[0]).bfloat16(), normal(sizes[1], 1).bfloat16()), layout)
    assert out.semantic.dtype is out.geometric.dtype is torch.bfloat16
    assert len(seen) == CONFIG.num_layers
    for streams in seen:
        for stream in (streams.semantic, streams.geometric):
            assert stream.dtype is torch.float32
            # A sum that had been rounded on the way would survive another rounding unchanged.
            assert not torch.equal(stream, stream.bfloat16().float())


def test_questions_hidden_from_each_other_equal_each_alone(mixture: Mixture) -> None:
    """Several questions about the same photos in one pass, each blind to those before it."""
    beginning = prompt(one_block=True)[:-1]
    first = layout_of(beginning)
    sizes = first.semantic_positions.shape[1], first.geometric_positions.shape[1]
    streams = Streams(normal(sizes[0], batch=2), normal(sizes[1], 1, batch=2))
    questions = [normal(3, seed, batch=2) for seed in (5, 6, 7)]
    place = torch.arange(40, 43).expand(3, -1)

    def run(fed: list[Tensor]) -> Streams:
        blocks = tuple(Block(3, 0, causal=True, num_hidden=3 * i) for i in range(len(fed)))
        positions = torch.cat([first.semantic_positions, *[place] * len(fed)], dim=1)
        layout = Layout((*first.blocks, *blocks), positions, first.geometric_positions)
        return mixture(Streams(torch.cat([streams.semantic, *fed], dim=1), streams.geometric), layout)

    together = run(questions)
    for i, question in enumerate(questions):
        alone = run([question])
        answer = together.semantic[:, sizes[0] + 3 * i : sizes[0] + 3 * (i + 1)]
        assert_close(answer, alone.semantic[:, sizes[0] :])
        assert_close(together.geometric, alone.geometric)


def test_hidden_tokens_and_a_cache_do_not_go_together(mixture: Mixture) -> None:
    blocks = (Block(2, 0, causal=True), Block(2, 0, causal=True, num_hidden=2))
    layout = Layout(blocks, torch.zeros(3, 4).long(), torch.zeros(3, 0).long())
    with pytest.raises(ValueError, match="without a cache"):
        mixture(Streams(normal(4), normal(0)), layout, KeyValueCache(CacheShape.of(CONFIG), 9))


def test_joined_weights_of_heads_are_kept_until_they_change() -> None:
    expert = fill_randomly(Mixture(CONFIG)).layers[0].semantic.requires_grad_(True)
    with torch.no_grad():
        assert expert._head_weights() is not expert._head_weights(), "they are being learnt"
        expert.requires_grad_(False)
        kept = expert._head_weights()
        assert expert._head_weights() is kept
        expert.query_norm.weight.mul_(2)
        changed = expert._head_weights()
        torch.testing.assert_close(changed[: CONFIG.num_heads], 2 * kept[: CONFIG.num_heads])
        expert.to(torch.bfloat16)
        rounded = expert._head_weights()
        assert rounded.dtype == torch.float32
        assert torch.equal(rounded, changed.bfloat16().float())
