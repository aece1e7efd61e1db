"""What a healthy checkpoint reaches on the example photos."""

from g2vlm.evaluation.checkup.rows import Limits
from g2vlm.model.config import G2VLMConfig, g2vlm_2b

ANY = Limits(
    source="any trained checkpoint: twice the errors of the small model of the package or more",
    abs_rel=0.2,
    depth_order=0.85,
    focal=0.2,
    rotation_deg=8.0,
    direction_deg=20.0,
    between_views=0.3,
    causal_depth=0.1,
    word_order=0.7,
    blindness=0.97,
    decoding=0.15,
)
"""Wide enough for a model of ten million parameters."""

RELEASED = Limits(
    source="the released size; a cautious guess, since nobody has reported figures of it yet",
    abs_rel=0.12,
    depth_order=0.92,
    focal=0.15,
    rotation_deg=6.0,
    direction_deg=20.0,
    between_views=0.1,
    causal_depth=0.1,
    word_order=0.7,
    blindness=1.05,
    decoding=0.15,
)
"""It never saw drawn rooms, nor answers in the words of the package's questions."""


def limits_for(config: G2VLMConfig) -> Limits:
    """The limits for a network of some size."""
    released = g2vlm_2b()
    same = (config.mixture, config.geometric_encoder.num_layers) == (
        released.mixture,
        released.geometric_encoder.num_layers,
    )
    return RELEASED if same else ANY
