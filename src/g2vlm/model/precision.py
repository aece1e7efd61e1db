"""The one place that decides on devices and number formats.

Policy: the towers run in the chosen precision with float32 sums (see `layers`), the geometry heads always in
float32. float16 is not offered: it is slow on CPUs, and its range is small for what was trained in bfloat16.
"""

import ctypes
import os
import platform
from dataclasses import dataclass
from enum import Enum

import torch
from torch import nn

from g2vlm.errors import DeviceError
from g2vlm.model.capabilities.deciding import taken, verdict
from g2vlm.model.capabilities.paths import FastPath
from g2vlm.model.config import Part

FLOAT32_PARTS = (Part.POINT_HEAD, Part.CAMERA_HEAD, Part.GLOBAL_POINT_HEAD, Part.CONFIDENCE_HEAD)
"""Parts that keep float32 weights in every precision."""


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""
KEPT_BLOCK_BYTES = 1 << 26
"""Blocks up to this size are reused; larger ones go back to the system at once."""
KEPT_BYTES = 1 << 28
"""Free memory beyond this goes back to the system."""


class Precision(Enum):
    """Number format of the weights and matrix products of the towers."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"

    @property
    def dtype(self) -> torch.dtype:
        """The torch type."""
        return torch.float32 if self is Precision.FLOAT32 else torch.bfloat16

    def dtype_of(self, name: str) -> torch.dtype:
        """Type of the weight with our name `name`: float32 inside the geometry heads."""
        part = name.split(".", 1)[0]
        return torch.float32 if part in {p.value for p in FLOAT32_PARTS} else self.dtype


@dataclass(frozen=True)
class Placement:
    """Where and how a network runs."""

    device: torch.device
    precision: Precision


def choose_placement(device: str = "auto", dtype: str = "auto") -> Placement:
    """Resolve the words of a user.

    Args:
        device: "auto" (CUDA if there is one, then MPS, then CPU), or any torch device such as "cuda:1".
        dtype: "float32", "bfloat16" or "auto" (bfloat16, but float32 on MPS and on a CPU where bfloat16
            measures slower).

    Raises:
        DeviceError: the device does not exist here, or the type is not offered or not right here.
    """
    chosen = _choose_device(device)
    return Placement(chosen, _choose_precision(dtype, chosen))


def _choose_device(device: str) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"Expected a device such as auto, cpu, cuda or cuda:1, got {device!r}.") from error
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= count:
            raise DeviceError(
                f"Expected a CUDA device for {device!r}, but torch {torch.__version__} sees {count}: "
                "use --device cpu, or install a CUDA build of torch and a driver."
            )
    elif chosen.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("Expected an Apple GPU for 'mps', but torch sees none: use --device cpu.")
    elif chosen.type not in ("cpu", "mps"):
        raise DeviceError(f"Expected a cpu, cuda or mps device, got {device!r}.")
    return chosen


def _choose_precision(dtype: str, device: torch.device) -> Precision:
    if dtype == "auto":
        slow = device.type == "mps" or (device.type == "cpu" and not taken(FastPath.BFLOAT16))
        return Precision.FLOAT32 if slow else Precision.BFLOAT16
    aliases = {"float32": "float32", "fp32": "float32", "bfloat16": "bfloat16", "bf16": "bfloat16"}
    if dtype not in aliases:
        raise DeviceError(f"Expected dtype auto, float32 or bfloat16, got {dtype!r}.")
    chosen = Precision(aliases[dtype])
    if chosen is Precision.BFLOAT16 and device.type == "cpu":
        found = verdict(FastPath.BFLOAT16)
        if not found.right:
            raise DeviceError(f"Expected right products in bfloat16, but they are {found}: use float32.")
    return chosen


def allow_tf32(device: torch.device) -> None:
    """Let this process multiply float32 matrices on CUDA through TF32: ten bits of mantissa, but faster.

    That concerns the geometry heads. It holds for the whole process, since torch knows no narrower place.

    Raises:
        DeviceError: another device, which has no such products.
    """
    if device.type != "cuda":
        raise DeviceError(f"Expected a CUDA GPU for TF32 products, got {device}: leave it out.")
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def keep_freed_memory() -> None:
    """Let this process reuse the memory of activations instead of asking the system for it every time.

    glibc returns every large block to the system when it is freed, and the next operation pays for clearing
    it page by page: a third of the time of a pass on a CPU. Changes nothing without glibc, or where the user
    has set the allocator's own environment variables.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK_BYTES)
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def cast_(network: nn.Module, precision: Precision) -> None:
    """Convert the weights of a network in place, following the policy."""
    for name, parameter in network.named_parameters():
        parameter.data = parameter.data.to(precision.dtype_of(name))
