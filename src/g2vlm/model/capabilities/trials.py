"""For each fast path: is it right, and is it faster?"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from g2vlm.model.capabilities.measuring import Call
from g2vlm.model.capabilities.paths import FastPath
from g2vlm.model.int4 import Int4Linear, PackedInt4Linear
from g2vlm.model.integer import CACHED_ROWS, LARGEST, Int8Linear, IntegerLinear
from g2vlm.model.layers import Linear
from g2vlm.model.native.library import NativeUnavailableError, load_library
from g2vlm.model.native.linear import NativeLinear
from g2vlm.model.native.matrix import StoredMatrix


class UnavailableError(Exception):
    """A path cannot run here; the message says what is missing."""


@dataclass(frozen=True)
class Pair:
    """The same work both ways."""

    plain: Call
    fast: Call


@dataclass(frozen=True)
class Trial:
    """How a path is tried."""

    error: Callable[[], float]
    """Runs the numeric test: the relative error of its results."""
    tolerance: float
    """Largest error that is right."""
    pair: Callable[[bool], Pair]
    """Makes the work to be timed; True for a hundredth of it, which shows what is hopeless."""
    cold: bool = False
    """Weights come from memory, as they do for single tokens."""


def relative_error(found: Float[Tensor, "*any"], exact: Float[Tensor, "*any"]) -> float:
    """Size of the difference over the size of the exact result; infinite where something is no number."""
    error = float((found.double() - exact.double()).norm() / exact.double().norm())
    return error if error == error else float("inf")


def _linear(rows: int, columns: int, *, dtype: torch.dtype = torch.float32) -> Linear:
    """A layer whose weights a generator of its own draws, so that the user's random numbers stay."""
    linear = Linear(columns, rows, bias=False, device="meta")
    weight = _drawn(rows, columns).mul_(columns**-0.5).to(dtype)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    return linear


def _drawn(*shape: int) -> Float[Tensor, "*any"]:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _bfloat16() -> Trial:
    """An MLP of the width of a tower, some hundred tokens."""

    def error() -> float:
        x, up = _drawn(64, 128), _linear(256, 128)
        narrow = _linear(256, 128, dtype=torch.bfloat16)
        return relative_error(narrow(x.bfloat16()), x.double() @ up.weight.double().T)

    def pair(small: bool) -> Pair:
        tokens, width = (16, 64) if small else (256, 512)
        up, down, x = _linear(4 * width, width), _linear(width, 4 * width), _drawn(tokens, width)
        narrow = [one.weight.bfloat16() for one in (up, down)]

        def run(x: Tensor, weights: list[Tensor]) -> Tensor:
            return F.linear(F.gelu(F.linear(x, weights[0])), weights[1])

        narrow_x = x.bfloat16()
        return Pair(lambda: run(x, [up.weight, down.weight]), lambda: run(narrow_x, narrow))

    return Trial(error, 2e-2, pair)


def _require_onednn() -> None:
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")):
        raise UnavailableError("this build of torch has no int8 product of oneDNN")


def _overflowing(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weights and rows all of the largest size, so that sums in sixteen bits overflow."""
    linear.weight = nn.Parameter(linear.weight.sign().mul_(LARGEST), requires_grad=False)
    return torch.full((8, linear.in_features), float(LARGEST)), linear.weight


def _integer(fine: bool, tolerance: float, rows: int, plain: Callable[[nn.Linear], nn.Module]) -> Trial:
    _require_onednn()

    def error() -> float:
        x, drawn = _drawn(8, 128), _linear(128, 128)
        found = relative_error(
            IntegerLinear(drawn, fine=fine)(x), x.double() @ _stored(drawn, fine).double().T
        )
        extreme = _linear(128, 128)
        large, weight = _overflowing(extreme)
        worst = relative_error(
            IntegerLinear(extreme, fine=fine)(large) + 1, large.double() @ weight.double().T + 1
        )
        return max(found, worst)

    def pair(small: bool) -> Pair:
        count, width = (min(rows, 8), 128) if small else (rows, 768)
        linear, x = _linear(width, width), _drawn(count, width)
        fast, slow = IntegerLinear(linear, fine=fine, num_rows=2 * min(rows, CACHED_ROWS)), plain(linear)
        return Pair(lambda: slow(x), lambda: fast(x))

    return Trial(error, tolerance, pair)


def _stored(linear: nn.Linear, fine: bool) -> Tensor:
    """The weight as an int8 plane holds it, or itself where a second plane holds the rest."""
    if fine:
        return linear.weight
    small = Int8Linear(linear)
    return small.weight * small.scale[:, None]


def _int4() -> Trial:
    def error() -> float:
        linear, x = _linear(64, 256), _drawn(1, 256)
        wide = Int4Linear(linear)(x.double().float())
        return relative_error(PackedInt4Linear(linear)(x), wide)

    def pair(small: bool) -> Pair:
        linear = _linear(64 if small else 2048, 512, dtype=torch.bfloat16)
        packed, x = PackedInt4Linear(linear), _drawn(1, 512).bfloat16()
        return Pair(lambda: Int4Linear.forward(packed, x), lambda: packed(x))

    return Trial(error, 1e-2, pair)


def _native(dtype: torch.dtype, plain: Callable[[nn.Linear], nn.Module], tolerance: float) -> Trial:
    """The product of one token with a matrix: what passes over one token are made of.

    Args:
        dtype: of the weights before they are stored in fewer bits.
        plain: how torch multiplies them.
        tolerance: of the numeric test.
    """
    _require_library()

    def store(layer: nn.Module) -> Callable[[Tensor], Tensor]:
        if isinstance(layer, Int8Linear | Int4Linear):
            return NativeLinear(layer)
        assert isinstance(layer, nn.Linear)
        return StoredMatrix.of_floats(layer.weight, None).multiply

    def error() -> float:
        layer, x = plain(_linear(96, 256, dtype=dtype)), _drawn(1, 256).to(dtype)
        exact = _widened(layer).double() @ x[0].double()
        return relative_error(store(layer)(x)[0], exact)

    def pair(small: bool) -> Pair:
        layer = plain(_linear(128 if small else 4096, 1024, dtype=dtype))
        fast, x = store(layer), _drawn(1, 1024).to(dtype)
        return Pair(lambda: layer(x), lambda: fast(x))

    return Trial(error, tolerance, pair, cold=True)


def _widened(layer: nn.Module) -> Tensor:
    """The weight that a layer stands for."""
    if isinstance(layer, Int4Linear):
        return layer._widened(slice(0, layer.out_features), torch.float32)
    if isinstance(layer, Int8Linear):
        return layer.weight * layer.scale[:, None]
    assert isinstance(layer, nn.Linear)
    return layer.weight


def _packed() -> Trial:
    _require_library()

    def error() -> float:
        linear, x = _linear(64, 256, dtype=torch.bfloat16), _drawn(1, 256).bfloat16()
        exact = x.double() @ linear.weight.double().T
        return relative_error(StoredMatrix.of_packed(linear.weight, None).multiply(x), exact)

    def pair(small: bool) -> Pair:
        weight = _linear(128 if small else 4096, 1024, dtype=torch.bfloat16).weight
        full, packed = StoredMatrix.of_floats(weight, None), StoredMatrix.of_packed(weight, None)
        x = _drawn(1, 1024)
        return Pair(lambda: full.multiply(x), lambda: packed.multiply(x))

    return Trial(error, 1e-2, pair, cold=True)


def _require_library() -> None:
    try:
        load_library()
    except NativeUnavailableError as error:
        raise UnavailableError(str(error)) from error


TRIALS: dict[FastPath, Callable[[], Trial]] = {
    FastPath.BFLOAT16: _bfloat16,
    FastPath.INTEGER_HEADS: lambda: _integer(True, 1e-4, CACHED_ROWS, lambda linear: linear),
    FastPath.INT8: lambda: _integer(False, 1e-3, 1, Int8Linear),
    FastPath.INT4: _int4,
    FastPath.DECODE_FLOAT32: lambda: _native(torch.float32, lambda linear: linear, 1e-5),
    FastPath.DECODE_BFLOAT16: lambda: _native(torch.bfloat16, lambda linear: linear, 1e-2),
    FastPath.DECODE_INT8: lambda: _native(torch.bfloat16, Int8Linear, 1e-2),
    FastPath.DECODE_INT4: lambda: _native(torch.bfloat16, PackedInt4Linear, 1e-2),
    FastPath.PACKED: _packed,
}
"""Each raises UnavailableError where the path cannot run at all."""
