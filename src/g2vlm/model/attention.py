"""The one attention call of every part of the network."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from g2vlm.model.attention_parts import Kernel, attend_part, joined, kernel_for

FEW = 64
"""Tokens up to which repeating a mask for every head costs less than repeating keys and values."""
SHORT = 1024
"""Keys up to which a CPU trains with explicit attention weights."""


def attend(
    queries: Float[Tensor, "batch heads tokens channels"],
    keys: Float[Tensor, "batch kv_heads keys channels"],
    values: Float[Tensor, "batch kv_heads keys channels"],
    *,
    causal: bool = False,
) -> Float[Tensor, "batch heads tokens channels"]:
    """Softmax attention with grouped heads, scaled by channels ** -0.5.

    Args:
        queries: heads may be a multiple of kv_heads; head i reads key/value head i // (heads / kv_heads).
        keys: the last `tokens` keys are those of the queries themselves; earlier ones are the past.
        values: one for each key.
        causal: query i sees keys up to its own (the last `tokens` keys are aligned with the queries).
    """
    num_tokens, num_keys = queries.shape[2], keys.shape[2]
    if not causal or num_tokens == 1:
        return _attend_alike(queries, keys, values, None)
    if not torch.is_grad_enabled():
        return _attend_after_past(queries, keys, values)
    grouped = queries.shape[1] != keys.shape[1]
    if not grouped and _is_short_training(queries, keys):
        return _explicit(queries, keys, values, _causal_mask(num_tokens, num_keys, keys.device))
    if num_tokens == num_keys:
        # SDPA aligns its own causal mask at the top left: right only where nothing stands before.
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=grouped)
    mask = _causal_mask(num_tokens, num_keys, keys.device)
    if grouped and num_tokens <= FEW:
        groups = queries.shape[1] // keys.shape[1]
        return _attend_alike(queries, keys, values, mask.repeat(1, 1, groups, 1))
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=grouped)


def _attend_after_past(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal, without a mask, which the fastest kernels do not take: the past and the own keys apart."""
    past = keys.shape[2] - queries.shape[2]
    own = attend_part(queries, keys[:, :, past:], values[:, :, past:], causal=True)
    if not past:
        return own.out.to(values.dtype)
    return joined(own, attend_part(queries, keys[:, :, :past], values[:, :, :past])).to(values.dtype)


def _attend_alike(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Heads of a group become rows of one head, so that no key is repeated; `mask` is for these rows."""
    kv_heads = keys.shape[1]
    if queries.shape[1] == kv_heads:
        return _ungrouped(queries, keys, values, mask)
    if _is_pinned(queries) and mask is None:
        return attend_part(queries, keys, values).out.to(values.dtype)
    rows = queries.unflatten(1, (kv_heads, -1)).flatten(2, 3)
    out = _ungrouped(rows, keys, values, mask)
    return out.unflatten(2, (-1, queries.shape[2])).flatten(1, 2)


def _is_pinned(queries: Tensor) -> bool:
    """On a GPU, where torch's own choice may be a kernel that is inexact with few key and value heads."""
    on_gpu = queries.device.type == "cuda" and not torch.is_grad_enabled()
    return on_gpu and kernel_for(queries, masked=False) is not Kernel.EXPLICIT


def _ungrouped(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    if _is_short_training(queries, keys):
        return _explicit(queries, keys, values, mask)
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)


def _is_short_training(queries: Tensor, keys: Tensor) -> bool:
    """Where the CPU kernel's backward pass takes three to four times as long as plain products do."""
    learning = torch.is_grad_enabled() and (queries.requires_grad or keys.requires_grad)
    return learning and queries.device.type == "cpu" and keys.shape[2] <= SHORT


def _explicit(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(dim=-1) @ values


def _causal_mask(num_tokens: int, num_keys: int, device: torch.device) -> Tensor:
    """True where a query may read a key, shape (1, 1, tokens, keys); the last keys are the queries' own."""
    own = torch.arange(num_keys - num_tokens, num_keys, device=device)
    return (torch.arange(num_keys, device=device) <= own[:, None])[None, None]


def split_heads(
    x: Float[Tensor, "batch tokens channels"], head_dim: int
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """View channels as heads, heads before tokens."""
    return x.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def merge_heads(
    x: Float[Tensor, "batch heads tokens head_dim"],
) -> Float[Tensor, "batch tokens channels"]:
    """Undo `split_heads`."""
    return x.transpose(1, 2).flatten(2)
