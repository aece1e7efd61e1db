"""What the package holds itself to, as ratios: they survive a change of machine, seconds do not."""

import re
from dataclasses import dataclass

from g2vlm.bench.presets import Preset
from g2vlm.bench.results import Measurement
from g2vlm.evaluation.results import Better


@dataclass(frozen=True)
class Goal:
    """A bound for the figures whose key matches."""

    pattern: str
    """Regular expression for the whole key."""
    bound: float
    """At least this, or at most this where lower is better."""
    of_limit: bool = False
    """Whether the fraction of the limit is bounded, rather than the value."""
    better: Better = Better.HIGHER

    def met_by(self, figure: Measurement) -> bool | None:
        """Whether a figure reaches the goal; None where the goal is not about it."""
        if not re.fullmatch(self.pattern, figure.key):
            return None
        value = figure.fraction if self.of_limit else figure.value
        if value is None:
            return None
        return value >= self.bound if self.better is Better.HIGHER else value <= self.bound

    def __str__(self) -> str:
        sign = ">=" if self.better is Better.HIGHER else "<="
        return f"{sign} {self.bound:.0%} of limit" if self.of_limit else f"{sign} {self.bound:g}"


GOALS = (
    Goal("load/again", 0.50, of_limit=True),
    Goal("equality/float32/depth", 0.1, better=Better.LOWER),
    Goal("equality/float32/tokens", 99.0),
    Goal("reconstruct/[28]/forward", 0.85, of_limit=True),
    Goal("questions/8/speedup", 20.0),
    Goal("questions/.*/identical", 100.0),
    Goal("decode/speed", 0.70, of_limit=True),
    Goal("decode/lossless_speedup", 3.0),
    Goal("decode/int8_speedup", 1.8),
    # Of bfloat16, whichever of the two ways without loss is faster counts; both are shown.
    Goal("baselines/(none|packed)/.*/ratio", 1.5),
    Goal("baselines/int[48]/.*/ratio", 1.2),
    # The time of the best plain choice over that of the default.
    Goal("paths/.*/ratio", 0.9),
    Goal("agreement/int8", 98.0),
    Goal("stitching/error", 1.0, better=Better.LOWER),
    Goal("stitching/loop_gain", 1.0),
    Goal("memory/reconstruct/growth", 35.0, better=Better.LOWER),
    Goal("memory/perceive/growth", 65.0, better=Better.LOWER),
)


_ANY_SIZE = re.compile("^stitching/|^agreement/|^equality/|/identical$")
"""Figures that do not depend on the speed of a network."""


def goal_of(figure: Measurement, preset: str) -> tuple[Goal, bool] | None:
    """The goal that a figure falls under, and whether it is met; None where there is none.

    The tiny preset has no goals but those for what is true rather than fast: it is far too small.
    """
    for goal in GOALS:
        met = goal.met_by(figure)
        if met is not None and (preset != Preset.TINY.value or _ANY_SIZE.search(figure.key)):
            return goal, met
    return None
