"""Which layers a machine, or the wish of a user, exchanges for ones that store their weights otherwise."""

from enum import Enum

from torch import nn

from g2vlm.model.capabilities.deciding import taken
from g2vlm.model.capabilities.paths import FastPath
from g2vlm.model.config import Part
from g2vlm.model.int4 import Int4Linear, PackedInt4Linear, fits_int4
from g2vlm.model.integer import CACHED_ROWS, Int8Linear, IntegerLinear
from g2vlm.model.native.linear import NativeLinear
from g2vlm.model.native.matrix import fits_packing
from g2vlm.model.precision import Placement, Precision, keep_freed_memory

_REPLACEMENTS = (IntegerLinear, Int8Linear, Int4Linear, NativeLinear)


class Quantization(Enum):
    """How the language side stores its matrices."""

    NONE = "none"
    """In the precision of the towers."""
    PACKED = "packed"
    """In bfloat16 without loss, in eleven bits a weight; only for native passes."""
    INT8 = "int8"
    """One signed byte a weight, one scale for each output channel."""
    INT4 = "int4"
    """Half a byte a weight of the semantic expert, one scale and one offset for each group of input channels;
    the language head stays int8."""


def adapt_(network: nn.Module, placement: Placement, quantization: Quantization, *, native: bool) -> None:
    """Exchange, in place, the layers of a loaded network for those that suit the machine and the user.

    Args:
        network: with its weights in place.
        placement: where they are.
        quantization: of the language side.
        native: native passes will write answers; only on a CPU.
    """
    quantize_language_(network, quantization, native=native)
    if placement.device.type == "cpu":
        keep_freed_memory()
        if placement.precision is Precision.BFLOAT16:
            speed_up_heads_(network)


def quantize_language_(network: nn.Module, quantization: Quantization, *, native: bool) -> None:
    """Store, in place, the semantic expert and the language head in fewer bits.

    Layers that are already replaced stay, so that parts loaded later can be treated by a second call.
    `native`: as native passes read them.
    """
    if quantization is Quantization.NONE:
        return
    for name, linear in _linears(network):
        if name.startswith("mixture.layers.") and ".semantic." in name:
            _replace(network, name, _smaller(linear, quantization, native))
        elif name == "language_head":
            # Its errors go straight into the choice of the next token.
            head = Quantization.INT8 if quantization is Quantization.INT4 else quantization
            _replace(network, name, _smaller(linear, head, native))


def _smaller(linear: nn.Linear, quantization: Quantization, native: bool) -> nn.Module:
    if quantization is Quantization.PACKED:
        return NativeLinear(linear) if fits_packing(linear.weight) else linear
    on_cpu = linear.weight.device.type == "cpu"
    if native:
        fits = quantization is Quantization.INT4 and fits_int4(linear)
        return NativeLinear(Int4Linear(linear) if fits else Int8Linear(linear))
    if quantization is Quantization.INT4 and fits_int4(linear):
        return PackedInt4Linear(linear) if on_cpu and taken(FastPath.INT4) else Int4Linear(linear)
    if on_cpu and taken(FastPath.INT8):
        return IntegerLinear(linear, fine=False)
    return Int8Linear(linear)


def speed_up_heads_(network: nn.Module) -> None:
    """Run, in place, the decoder blocks of float32 geometry heads through two int8 planes.

    The final projections and the camera's own layers, which are small, stay plain float32. Nothing changes
    where integer products are not right or not faster.
    """
    if not taken(FastPath.INTEGER_HEADS):
        return
    heads = {part.value for part in Part} - {Part.LANGUAGE_HEAD.value}
    for name, linear in _linears(network):
        if ".decoder.blocks." in name and name.split(".")[0] in heads and linear.weight.device.type == "cpu":
            _replace(network, name, IntegerLinear(linear, fine=True, num_rows=2 * CACHED_ROWS))


def is_replaced(module: nn.Module) -> bool:
    """Whether some layer no longer holds its original weight, so that the module cannot be saved."""
    return any(isinstance(part, _REPLACEMENTS) for part in module.modules())


def _linears(network: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)
