"""The one attention call of every part of the network."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


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
    if num_tokens == 1:
        causal = False
    grouped = queries.shape[1] != keys.shape[1]
    if not causal and key_mask is None:
        return F.scaled_dot_product_attention(queries, keys, values, enable_gqa=grouped)
    if causal and key_mask is None and num_tokens == num_keys:
        # SDPA aligns its own causal mask at the top left: right only where nothing stands before.
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=grouped)
    mask = None
    if causal:
        row = torch.arange(num_keys - num_tokens, num_keys, device=keys.device)
        mask = torch.arange(num_keys, device=keys.device) <= row[:, None]
    if key_mask is not None:
        present = key_mask[:, None, None]
        mask = present if mask is None else mask & present
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=grouped)


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
