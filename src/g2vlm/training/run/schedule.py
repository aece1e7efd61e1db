"""Learning rate over steps."""

import math


def cosine_with_warmup(step: int, *, warmup: int, total: int, floor: float) -> float:
    """Factor on the peak learning rate at a step.

    Rises linearly over `warmup` steps (the first one is not zero), then falls along half a cosine to `floor`.

    Args:
        step: counted from 0.
        warmup: steps of the rise.
        total: steps of the whole run; later steps stay at the floor.
        floor: final factor, 0 to 1.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
