"""Which precision sums and small solves are carried out in."""

from jaxtyping import Float
from torch import Tensor


def widen(tensor: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The tensor in float64 where its device has it, else in float32 (Apple GPUs)."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()
