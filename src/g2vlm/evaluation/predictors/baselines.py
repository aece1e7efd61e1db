"""Simpler methods beside which a model is measured, by name."""

from collections.abc import Callable, Sequence

from g2vlm.errors import InputError
from g2vlm.evaluation.predictors.classical import Classical
from g2vlm.evaluation.predictors.colmap import Colmap, is_installed
from g2vlm.evaluation.predictors.interface import Reconstructor
from g2vlm.evaluation.predictors.nothing import Nothing

BASELINES: dict[str, Callable[[], Reconstructor]] = {
    "nothing": Nothing,
    "sift": Classical,
    "colmap": Colmap,
}
"""nothing: constant depth and still cameras. sift, colmap: classical, with known intrinsics."""


def chosen_baselines(names: Sequence[str]) -> dict[str, Reconstructor]:
    """Make baselines by name.

    Raises:
        InputError: an unknown name.
        MissingExtraError: one that is not installed.
    """
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        raise InputError(f"Expected baselines among {', '.join(BASELINES)}, got {', '.join(unknown)}.")
    return {name: BASELINES[name]() for name in names}


def usual_baselines(names: Sequence[str]) -> tuple[str, ...]:
    """The names without those that are not installed."""
    return tuple(name for name in names if name != "colmap" or is_installed())
