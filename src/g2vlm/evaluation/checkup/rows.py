"""What a checkup finds: one row for each thing that was looked at."""

from dataclasses import dataclass
from enum import StrEnum


class Group(StrEnum):
    """What a row is about."""

    FILE = "file"
    """The files of the checkpoint."""
    MEMORY = "weights in memory"
    """What loading made of them."""
    GEOMETRY = "geometry of the example photos"
    """Beside their truth."""
    CONSISTENCY = "the model against itself"
    """Two ways to the same result."""
    PICTURES = "preparation of pictures"
    """Whether pictures prepared in other ways would suit the model better."""
    ANSWERS = "answers"
    """Words, and whether they are true."""


@dataclass(frozen=True)
class Row:
    """One thing that was looked at."""

    group: Group
    subject: str
    """What was looked at."""
    passed: bool | None
    """Whether it is as expected; None where there is nothing to compare it with."""
    found: str
    """What there is."""
    expected: str
    """What there should be."""
    broken: str
    """What a broken load, a wrong precision or swapped normalisation gives."""


@dataclass(frozen=True)
class Limits:
    """What a healthy checkpoint reaches on the example photos."""

    source: str
    """Where these numbers come from."""
    abs_rel: float
    """Largest error of depth: mean of |d - true| / true after one scale for the scene."""
    depth_order: float
    """Least share of pairs of pixels of one view whose nearer one is told."""
    focal: float
    """Largest relative error of focal lengths."""
    rotation_deg: float
    """Largest mean error of relative rotations."""
    direction_deg: float
    """Largest mean error of directions of relative translations."""
    between_views: float
    """Largest median distance between what two views say about one surface point, as a share of its depth."""
    causal_depth: float
    """Largest median relative difference of depth between causal and global attention."""
    word_order: float
    """Largest ratio of the surprise about a true answer to that about its words in disorder."""
    blindness: float
    """Largest ratio of the surprise about true answers with the photos to that with grey ones; above 1 where
    nothing is expected."""
    decoding: float
    """Largest mean difference of log-probabilities between decoding token by token and one whole pass."""
