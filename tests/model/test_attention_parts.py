"""Attention in parts against attention at once, on every kernel that runs here, and the choice of kernels."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from g2vlm.model import attention_parts
from g2vlm.model.attention_parts import (
    AttentionPart,
    Kernel,
    attend_part,
    attend_shared,
    explicit_part,
    join,
    kernel_for,
)

HEADS, KV_HEADS, CHANNELS = 6, 2, 16


def draw(tokens: int, keys: int, rows: int = 1, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(tokens + 10 * keys)
    sizes = ((HEADS, tokens), (KV_HEADS, keys), (KV_HEADS, keys))
    return tuple(torch.randn(rows, *size, CHANNELS, generator=generator).to(dtype) for size in sizes)


def literal(
    queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of one softmax in float64."""
    keys, values = (kind.double().repeat_interleave(HEADS // KV_HEADS, 1) for kind in (keys, values))
    scores = queries.double() @ keys.mT * CHANNELS**-0.5
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    return scores.softmax(-1) @ values, scores.logsumexp(-1)


def check(part: AttentionPart, expected: tuple[Tensor, Tensor], tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(part.out.double(), expected[0], rtol=0, atol=tolerance)
    torch.testing.assert_close(part.log_sum.double(), expected[1], rtol=tolerance, atol=tolerance)


@pytest.fixture(params=[Kernel.CPU, Kernel.EXPLICIT])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setattr(attention_parts, "kernel_for", lambda queries, masked: request.param)
    if request.param is Kernel.EXPLICIT:
        # As on other devices, where no kernel repeats keys by itself.
        repeated = lambda keys, queries: keys.repeat_interleave(HEADS // KV_HEADS, 1)  # noqa: E731
        monkeypatch.setattr(attention_parts, "_repeated", repeated)
    return request.param


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("tokens", [1, 5])
def test_a_part_is_a_softmax_and_its_sum(tokens: int) -> None:
    check(attend_part(*draw(tokens, 9, rows=2)), literal(*draw(tokens, 9, rows=2)))
    q, k, v = draw(tokens, tokens, rows=2)
    visible = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    check(attend_part(q, k, v, causal=True), literal(q, k, v, visible))


@pytest.mark.usefixtures("kernel")
def test_keys_that_do_not_exist_have_no_influence() -> None:
    q, k, v = draw(1, 9, rows=3)
    exists = torch.arange(9) < torch.tensor([9, 4, 1])[:, None]
    bias = torch.zeros(3, 9).masked_fill(~exists, -torch.inf)[:, None, None]
    check(attend_part(q, k, v, bias=bias), literal(q, k, v, exists[:, None, None]))


@pytest.mark.usefixtures("kernel")
def test_parts_join_to_the_whole_also_where_one_outweighs_the_other() -> None:
    q, k, v = draw(3, 20)
    for scale in (1.0, 60.0):
        pieces = [attend_part(q, scale * k[:, :, part], v[:, :, part]) for part in (slice(7), slice(7, 20))]
        check(join(*pieces), literal(q, scale * k, v), 3e-5)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("tokens", [1, 4])
def test_rows_meet_shared_keys_in_one_product(tokens: int) -> None:
    q, k, v = draw(tokens, 11, rows=3)
    found = attend_shared(q, k[0], v[0])
    check(found, literal(q, k[:1].expand_as(k), v[:1].expand_as(v)))


def test_bfloat16_keeps_its_scores_in_float32() -> None:
    """Scores were once rounded to bfloat16 before the softmax: with large ones, that is all that was lost."""
    q, k, v = draw(4, 300, dtype=torch.bfloat16)
    expected = literal(8 * q, k, v)
    for part in (attend_part(8 * q, k, v), attend_shared(8 * q, k[0], v[0])):
        assert part.log_sum.dtype == torch.float32
        torch.testing.assert_close(part.log_sum.double(), expected[1], rtol=0, atol=1e-4)
    rounded = (8 * q @ k.repeat_interleave(3, 1).mT).double() * CHANNELS**-0.5
    assert (rounded.logsumexp(-1) - expected[1]).abs().max() > 1e-2


def test_the_kernels_of_a_gpu_are_chosen_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch might take one that copies keys, or cuDNN's, which is inexact with few key heads on some GPUs."""
    with FakeTensorMode():
        narrow = torch.empty(1, 6, 1, 128, dtype=torch.bfloat16, device="cuda")
        odd = torch.empty(1, 6, 1, 20, dtype=torch.bfloat16, device="cuda")
    for recent in (True, False):
        monkeypatch.setattr(attention_parts, "_AMPERE", {0: recent})
        flash = Kernel.FLASH if recent else Kernel.EXPLICIT
        assert kernel_for(narrow, masked=False) is flash
        assert kernel_for(narrow, masked=True) is (Kernel.EFFICIENT if recent else Kernel.EXPLICIT)
        with FakeTensorMode(allow_non_fake_inputs=True):
            assert kernel_for(narrow.float(), masked=False) is Kernel.EFFICIENT
        assert kernel_for(odd, masked=False) is Kernel.EXPLICIT
    assert kernel_for(torch.empty(1, 6, 1, 20), masked=True) is Kernel.CPU
    assert kernel_for(torch.empty(1, 6, 1, 64, device="meta"), masked=False) is Kernel.EXPLICIT


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_calls_on_a_gpu_have_the_shapes_of_those_on_a_cpu(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_parts, "_AMPERE", {0: True})
    for rows, tokens in ((1, 1), (3, 1), (3, 5)):
        found = []
        for device in ("cpu", "cuda"):
            with FakeTensorMode():
                q, own, shared = (
                    torch.empty(*size, CHANNELS, dtype=dtype, device=device)
                    for size in ((rows, HEADS, tokens), (rows, KV_HEADS, tokens), (KV_HEADS, 40))
                )
                bias = torch.zeros(rows, 1, 1, tokens, device=device)
                causal, other = attend_part(q, own, own, causal=True), attend_shared(q, shared, shared)
                masked = attend_part(q, own, own, bias=bias)
                parts = (causal, other, masked, join(causal, other))
                found.append([(part.out.shape, part.log_sum.shape) for part in parts])
                assert all(part.out.device.type == device for part in parts)
        assert found[0] == found[1]


def test_compiled_code_asks_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU can do is known from the question that was read before; asking would break the graph."""
    monkeypatch.setattr(attention_parts, "_AMPERE", {0: True})
    device = torch.device("cuda", 0)

    def scaled(x: Tensor) -> Tensor:
        return 2 * x if attention_parts._since_ampere(device) else x

    compiled = torch.compile(scaled, backend="eager", fullgraph=True)
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 2.0))


def test_explicit_parts_need_no_mask() -> None:
    q, k, v = draw(2, 5)
    k, v = (kind.repeat_interleave(3, 1) for kind in (k, v))
    part = explicit_part(q, k, v, None)
    check(part, literal(q, k[:, ::3], v[:, ::3]))
