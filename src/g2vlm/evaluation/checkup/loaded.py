"""What loading made of the weights: the numbers of the file, in the formats that were asked for."""

from collections.abc import Iterator

import torch
from torch import Tensor

from g2vlm.checkpoints.loading import Weights
from g2vlm.checkpoints.names import KeyRow, table
from g2vlm.evaluation.checkup.rows import Group, Row
from g2vlm.pipeline import Model

_ROWS = 64
"""Rows of each weight that are compared with the file, evenly spread, the first and the last included."""


def memory_rows(model: Model) -> Iterator[Row]:
    """Compare the weights in memory with the file, and their formats with the policy."""
    parameters = dict(model.network.named_parameters())
    precision = model.placement.precision
    wrong = [
        f"{name} in {str(values.dtype).removeprefix('torch.')}"
        for name, values in parameters.items()
        if values.dtype != precision.dtype_of(name)
    ]
    yield Row(
        Group.MEMORY,
        "number formats",
        not wrong,
        _first(wrong) or f"towers {precision.value}, geometry heads float32",
        f"towers {precision.value}, geometry heads float32",
        "geometry heads in bfloat16: depth in steps of 0.4 to 0.8 %",
    )
    weights = Weights.open(model.folder)
    changed = [
        row.ours
        for row in table(model.config, model.network.parts)
        if row.ours in parameters and not _is_stored(parameters[row.ours], row, weights)
    ]
    yield Row(
        Group.MEMORY,
        "numbers of the file",
        not changed,
        _first(changed) or f"{len(parameters)} weights are the file's, rounded once",
        "every weight",
        "others: rounded twice, moved, exchanged or never filled",
    )


def _is_stored(values: Tensor, row: KeyRow, weights: Weights) -> bool:
    stored = torch.cat(
        [
            weights.tensor(key).flatten(1) if weights.tensor(key).ndim > 1 else weights.tensor(key)
            for key in row.released
        ]
    )
    flat = stored.reshape(values.shape[0], -1)
    chosen = torch.linspace(0, len(flat) - 1, min(_ROWS, len(flat))).round().long()
    expected = flat[chosen].to(values.dtype)
    found = values.detach().reshape(values.shape[0], -1)[chosen.to(values.device)].cpu()
    return torch.equal(found, expected)


def _first(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
