"""Attention to keys that lie in several places, read place by place and put together exactly.

Softmax over all keys is the mean of the softmax over each part of them, weighted by the exponential of the
parts' log-sum-exp. So a beginning that many questions share is neither copied nor masked, and the fastest
kernels can be used, which take no masks and keep their scores in float32. Source: the splitting of
Flash-Decoding (Dao et al. 2023) and Hydragen (arXiv 2402.05099).
"""

from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor

aten = torch.ops.aten


class Kernel(Enum):
    """What computes a part; chosen here, because torch's own choice may fall on slow or inexact ones."""

    CPU = "cpu"
    FLASH = "flash"
    """FlashAttention: no mask, bfloat16 or float16, GPUs since Ampere."""
    EFFICIENT = "efficient"
    """Memory-efficient attention: any mask, also float32."""
    EXPLICIT = "explicit"
    """Plain products in float32: anywhere."""


HEAD_MULTIPLE, LARGEST_HEAD = 8, 256
"""Channels of a head that the kernels of a GPU take."""


def kernel_for(queries: Float[Tensor, "batch heads tokens channels"], *, masked: bool) -> Kernel:
    """The kernel that computes attention of such queries."""
    device, channels = queries.device, queries.shape[-1]
    if device.type == "cpu":
        return Kernel.CPU
    if device.type != "cuda" or channels % HEAD_MULTIPLE or channels > LARGEST_HEAD:
        return Kernel.EXPLICIT
    narrow, recent = queries.dtype in (torch.bfloat16, torch.float16), _since_ampere(device)
    if narrow and recent and not masked:
        return Kernel.FLASH
    return Kernel.EFFICIENT if recent or queries.dtype != torch.bfloat16 else Kernel.EXPLICIT


_AMPERE: dict[int | None, bool] = {}
"""By the number of a device, which compiled passes cannot ask: the question before them has."""


def _since_ampere(device: torch.device) -> bool:
    """Whether a GPU has the instructions of FlashAttention and of bfloat16."""
    if device.index not in _AMPERE:
        _AMPERE[device.index] = torch.cuda.get_device_capability(device)[0] >= 8
    return _AMPERE[device.index]


@dataclass(frozen=True)
class AttentionPart:
    """Attention to some of the keys, and how much weight these have among all."""

    out: Float[Tensor, "batch heads tokens channels"]
    log_sum: Float[Tensor, "batch heads tokens"]
    """Logarithm of the sum of the exponentials of the scores, float32."""

    def rows(self, rows: Tensor) -> "AttentionPart":
        """Of some rows of the batch."""
        return AttentionPart(self.out[rows], self.log_sum[rows])

    def with_rows(self, rows: Tensor, part: "AttentionPart") -> "AttentionPart":
        """The same with some rows exchanged."""
        out = self.out.to(part.out.dtype)
        return AttentionPart(
            out.index_copy(0, rows, part.out), self.log_sum.index_copy(0, rows, part.log_sum)
        )


def attend_part(
    queries: Float[Tensor, "batch heads tokens channels"],
    keys: Float[Tensor, "batch kv_heads keys channels"],
    values: Float[Tensor, "batch kv_heads keys channels"],
    *,
    causal: bool = False,
    bias: Float[Tensor, "batch 1 1 keys"] | None = None,
) -> AttentionPart:
    """Attention to one part of the keys, scaled by channels ** -0.5.

    Args:
        queries: heads may be a multiple of kv_heads.
        keys: at least one.
        values: one for each key.
        causal: keys are those of the queries themselves; query i sees keys up to i.
        bias: minus infinity where a key does not exist, 0 elsewhere; at least one exists in each row.
    """
    if causal and queries.shape[2] > 1:
        return _run(queries, _repeated(keys, queries), _repeated(values, queries), causal=True)
    # Heads of a group become rows of one head, so that no key is repeated.
    num_tokens, kv_heads = queries.shape[2], keys.shape[1]
    rows = queries.unflatten(1, (kv_heads, -1)).flatten(2, 3)
    part = _run(rows, keys, values, bias=bias)
    return AttentionPart(
        part.out.unflatten(2, (-1, num_tokens)).flatten(1, 2),
        part.log_sum.unflatten(2, (-1, num_tokens)).flatten(1, 2),
    )


def attend_shared(
    queries: Float[Tensor, "batch heads tokens channels"],
    keys: Float[Tensor, "kv_heads keys channels"],
    values: Float[Tensor, "kv_heads keys channels"],
) -> AttentionPart:
    """Attention of all rows to keys that stand before each of them: they meet them in one product."""
    batch, _, num_tokens, _ = queries.shape
    rows = queries.unflatten(1, (keys.shape[0], -1)).transpose(0, 1).flatten(1, 3).unsqueeze(0)
    part = _run(rows, keys.unsqueeze(0), values.unsqueeze(0))

    def by_row(found: Tensor) -> Tensor:
        return found.squeeze(0).unflatten(1, (batch, -1, num_tokens)).transpose(0, 1).flatten(1, 2)

    return AttentionPart(by_row(part.out), by_row(part.log_sum))


def explicit_part(
    queries: Float[Tensor, "batch heads tokens channels"],
    keys: Float[Tensor, "batch heads keys channels"],
    values: Float[Tensor, "batch heads keys channels"],
    visible: Tensor | None,
) -> AttentionPart:
    """The same in plain float32 products, for equal numbers of heads; `visible` may be broadcast."""
    scores = (queries.float() * queries.shape[-1] ** -0.5) @ keys.float().mT
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    log_sum = scores.logsumexp(dim=-1)
    return AttentionPart((scores - log_sum[..., None]).exp() @ values.float(), log_sum)


def joined(first: AttentionPart, second: AttentionPart) -> Float[Tensor, "batch heads tokens channels"]:
    """Attention to the keys of both, in float32."""
    # exp(a) / (exp(a) + exp(b)) without overflow
    share = (first.log_sum - second.log_sum).sigmoid().unsqueeze(-1)
    return torch.lerp(second.out.float(), first.out.float(), share)


def join(first: AttentionPart, second: AttentionPart) -> AttentionPart:
    """The same as one part, to be joined with more."""
    return AttentionPart(joined(first, second), torch.logaddexp(first.log_sum, second.log_sum))


def _run(
    queries: Tensor, keys: Tensor, values: Tensor, *, causal: bool = False, bias: Tensor | None = None
) -> AttentionPart:
    """By the kernel that suits; heads are as many as those of keys, or the keys' are repeated."""
    kernel = kernel_for(queries, masked=bias is not None)
    if kernel is Kernel.CPU:
        found = aten._scaled_dot_product_flash_attention_for_cpu(
            queries, keys, values, 0.0, causal, attn_mask=bias
        )
        return AttentionPart(found[0], found[1])
    if kernel is Kernel.FLASH:
        found = aten._scaled_dot_product_flash_attention(queries, keys, values, 0.0, causal)
        return AttentionPart(found[0], found[1])
    if kernel is Kernel.EFFICIENT:
        wide = None if bias is None else bias.to(queries.dtype).expand(*queries.shape[:3], -1)
        found = aten._scaled_dot_product_efficient_attention(queries, keys, values, wide, True, 0.0, causal)
        # This kernel pads its sums to whole tiles of queries.
        return AttentionPart(found[0], found[1].narrow(2, 0, queries.shape[2]))
    visible = None if bias is None else bias == 0
    if causal:
        visible = torch.ones(keys.shape[2], keys.shape[2], dtype=torch.bool, device=keys.device).tril()
    return explicit_part(queries, keys, values, visible)


def _repeated(keys: Tensor, queries: Tensor) -> Tensor:
    """Keys once for every query head; the kernel of a CPU does that by itself."""
    groups = queries.shape[1] // keys.shape[1]
    return keys if groups == 1 or keys.device.type == "cpu" else keys.repeat_interleave(groups, dim=1)
