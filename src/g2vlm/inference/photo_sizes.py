"""In which sizes a model needs photos, so that no more of them stays in memory."""

from g2vlm.checkpoints.files import read_config
from g2vlm.checkpoints.hub import choose_checkpoint
from g2vlm.errors import G2VLMError
from g2vlm.inputs.geometric import Fit
from g2vlm.inputs.reduction import Reduction
from g2vlm.model.config import G2VLMConfig


def reduction_for(config: G2VLMConfig, fit: Fit, *, asking: bool) -> Reduction:
    """Sizes of photos for a network.

    Args:
        config: of the network.
        fit: how photos of other shapes are brought to the first one's.
        asking: also the size for questions.
    """
    return Reduction(
        width=config.image_width,
        patch=config.geometric_encoder.patch_size,
        fit=fit,
        semantic_side=config.semantic_encoder.image_side if asking else None,
    )


def expected_reduction(checkpoint: str | None, fit: Fit, *, asking: bool) -> Reduction:
    """Sizes of photos for a checkpoint that is still to be loaded; nothing is fetched.

    Those of the released one where it is not on this machine yet. A wrong guess costs time only: photos are
    then decoded again.

    Args:
        checkpoint: as `choose_checkpoint` takes it.
        fit: how photos of other shapes are brought to the first one's.
        asking: also the size for questions.
    """
    try:
        config = read_config(choose_checkpoint(checkpoint, may_download=False).folder)
    except G2VLMError:
        config = G2VLMConfig()  # loading tells what is wrong
    return reduction_for(config, fit, asking=asking)
