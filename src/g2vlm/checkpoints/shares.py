"""Filling networks of which each process holds a share: everyone reads its own part of every weight."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from g2vlm.checkpoints.filling import copy_all, pieces_of
from g2vlm.checkpoints.loading import Weights
from g2vlm.checkpoints.names import table
from g2vlm.model.config import G2VLMConfig


@dataclass(frozen=True)
class Share:
    """Numbers of a weight that lie here."""

    values: Float[Tensor, " numbers"]
    """The place for them, contiguous, on any device and in any type."""
    start: int = 0
    """Which number of the whole weight, in row-major order, is the first."""


def fill_shares(weights: Weights, config: G2VLMConfig, share_of: Callable[[str], Share]) -> None:
    """Read the share of every weight from a checkpoint; the rest of the file is not touched.

    Args:
        weights: of a checkpoint whose keys were found complete.
        config: of its network.
        share_of: the share that lies here of the weight with our name.
    """
    jobs = (
        pieces_of(_range_of(map(weights.tensor, row.released), share), share.values)
        for row, share in ((row, share_of(row.ours)) for row in table(config))
    )
    copy_all(jobs)


def _range_of(stored: Iterable[Tensor], share: Share) -> list[Tensor]:
    """What of some stored tensors, laid one behind the other, belongs to a share."""
    first, end = share.start, share.start + len(share.values)
    parts, begin = [], 0
    for tensor in stored:
        flat = tensor.reshape(-1)
        low, high = max(first - begin, 0), min(end - begin, len(flat))
        if low < high:
            parts.append(flat[low:high])
        begin += len(flat)
    return parts
