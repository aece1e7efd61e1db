"""Which scene seeds belong to training, validation and test: the one place that says so.

A scene of the synthetic world is a function of its seed, so keeping the seed ranges apart keeps the splits
apart: a test room is never trained on.
"""

from enum import Enum

from g2vlm.errors import InputError


class Split(Enum):
    """A range of scene seeds, first included, last excluded."""

    TRAIN = (1_000_000, 2_000_000_000)
    VALIDATION = (0, 100_000)
    TEST = (500_000, 600_000)

    @property
    def seeds(self) -> range:
        """All seeds of the split."""
        return range(*self.value)


def split_seeds(split: Split, count: int, first: int = 0) -> range:
    """Returns `count` seeds of a split.

    Args:
        split: the split.
        count: how many seeds, at least 1.
        first: offset inside the split, at least 0.

    Raises:
        InputError: if the split does not hold that many seeds.
    """
    seeds = split.seeds
    if first < 0 or count < 1 or first + count > len(seeds):
        raise InputError(
            f"Expected at least one seed inside the {len(seeds)} of {split.name}, got {count} starting at "
            f"offset {first}: choose a smaller range."
        )
    return seeds[first : first + count]


def split_of(seed: int) -> Split:
    """Returns the split that a seed belongs to.

    Raises:
        InputError: if the seed lies in no split.
    """
    for split in Split:
        if seed in split.seeds:
            return split
    ranges = ", ".join(f"{split.name} {split.value[0]}..{split.value[1] - 1}" for split in Split)
    raise InputError(f"Expected a seed of one of the splits ({ranges}), got {seed}.")
