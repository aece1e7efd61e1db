"""The one attention call of every part of the network."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

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
    key_mask: Bool[Tensor, "batch keys"] | None = None,
) -> Float[Tensor, "batch heads tokens channels"]:
    """Softmax attention with grouped heads, scaled by channels ** -0.5.

    Args:
        queries: heads may be a multiple of kv_heads; head i reads key/value head i // (heads / kv_heads).
        keys: the last `tokens` keys are those of the queries themselves; earlier ones are the past.
        values: one for each key.
        causal: query i sees keys up to its own (the last `tokens` keys are aligned with the queries).
        key_mask: False where a key does not exist (padding), for every query.
    """
    num_tokens, num_keys = queries.shape[2], keys.shape[2]
    grouped = queries.shape[1] != keys.shape[1]
    causal = causal and num_tokens > 1
    if not causal:
        return _attend_alike(queries, keys, values, None if key_mask is None else key_mask[:, None, None])
    if not grouped and _is_short_training(queries, keys):
        mask = _mask(num_tokens, num_keys, causal, key_mask, keys.device)
        return _explicit(queries, keys, values, mask)
    if causal and key_mask is None and num_tokens == num_keys:
        # SDPA aligns its own causal mask at the top left: right only where nothing stands before.
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=grouped)
    mask = _mask(num_tokens, num_keys, causal, key_mask, keys.device)
    if grouped and num_tokens <= FEW:
        groups = queries.shape[1] // keys.shape[1]
        return _attend_alike(queries, keys, values, mask.repeat(1, 1, groups, 1))
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=grouped)


def _attend_alike(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Heads of a group become rows of one head, so that no key is repeated; `mask` is for these rows."""
    kv_heads = keys.shape[1]
    if queries.shape[1] == kv_heads:
        return _ungrouped(queries, keys, values, mask)
    rows = queries.unflatten(1, (kv_heads, -1)).flatten(2, 3)
    out = _ungrouped(rows, keys, values, mask)
    return out.unflatten(2, (-1, queries.shape[2])).flatten(1, 2)


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


def _mask(
    num_tokens: int, num_keys: int, causal: bool, key_mask: Tensor | None, device: torch.device
) -> Tensor:
    """True where a query may read a key; broadcastable to (batch, heads, tokens, keys)."""
    visible = torch.ones(1, 1, 1, num_keys, dtype=torch.bool, device=device)
    if causal:
        own = torch.arange(num_keys - num_tokens, num_keys, device=device)
        visible = visible & (torch.arange(num_keys, device=device) <= own[:, None])
    return visible if key_mask is None else visible & key_mask[:, None, None]


@dataclass(frozen=True)
class SharedKeys:
    """Keys and values that every row of a batch reads, stored once."""

    keys: Float[Tensor, "1 kv_heads shared channels"]
    values: Float[Tensor, "1 kv_heads shared channels"]


def attend_shared(
    queries: Float[Tensor, "batch heads tokens channels"],
    shared: SharedKeys,
    keys: Float[Tensor, "batch kv_heads keys channels"],
    values: Float[Tensor, "batch kv_heads keys channels"],
    key_mask: Bool[Tensor, "batch keys"],
) -> Float[Tensor, "batch heads tokens channels"]:
    """Causal attention of several continuations of one beginning, which is read without being copied.

    Args:
        queries: as in `attend`.
        shared: the beginning; every query sees all of it.
        keys: of the continuations; the last `tokens` are those of the queries.
        values: one for each key.
        key_mask: False where a continuation is padding.
    """
    batch, _, num_tokens, channels = queries.shape
    kv_heads, num_keys, num_shared = keys.shape[1], keys.shape[2], shared.keys.shape[2]
    grouped = queries.unflatten(1, (kv_heads, -1)) * channels**-0.5
    # Rows of all continuations meet the shared keys in one product: (kv_heads, rows, shared).
    rows = grouped.transpose(0, 1).flatten(1, 3)
    to_shared = (rows @ shared.keys[0].transpose(-1, -2)).float()
    to_own = (grouped.flatten(2, 3) @ keys.transpose(-1, -2)).float().unflatten(2, (-1, num_tokens))
    visible = _mask(num_tokens, num_keys, num_tokens > 1, key_mask, keys.device)
    to_own = to_own.masked_fill(~visible[:, :, None], -torch.inf)
    by_row = to_shared.unflatten(1, (batch, -1, num_tokens)).transpose(0, 1)
    weights = torch.cat([by_row, to_own], dim=-1).softmax(dim=-1).to(values.dtype)
    on_shared = weights[..., :num_shared].transpose(0, 1).flatten(1, 3) @ shared.values[0]
    out = on_shared.unflatten(1, (batch, -1, num_tokens)).transpose(0, 1).flatten(2, 3)
    out = out + weights[..., num_shared:].flatten(2, 3) @ values
    return out.unflatten(2, (-1, num_tokens)).flatten(1, 2)


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
