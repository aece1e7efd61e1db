"""Networks without numbers: modules, names and shapes, built in milliseconds."""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from g2vlm.model.config import G2VLMConfig, Part
from g2vlm.model.network import G2VLM


def outline(config: G2VLMConfig, parts: frozenset[Part] | None = None) -> G2VLM:
    """A network on the meta device, to be looked at or to be filled.

    Args:
        config: sizes.
        parts: all by default.
    """
    with torch.device("meta"), _NoDrawing():
        return G2VLM(config, parts)


class _NoDrawing(TorchFunctionMode):
    """Leaves out the starting weights that modules draw: nothing holds them.

    Asking the meta device for random numbers also imports torch's compiler, which takes longer than reading
    the weights.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return named["tensor"] if "tensor" in named else args[0]
        return func(*args, **named)
