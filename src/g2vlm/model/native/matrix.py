"""Matrices as the C library reads them: pointers into tensors, in any of four formats."""

import contextlib
import ctypes
import mmap
import platform
from ctypes import c_int32, c_int64, c_void_p

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from g2vlm.model.native.library import load_library

FLOAT32, BFLOAT16, INT8, INT4, PACKED = range(5)
"""Formats, as in formats.h."""
BAND, SPAN, STRIP, STRIP_BYTES, SLACK = 16, 512, 16, 320, 8192
"""Of packed.h."""
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25
"""Of Linux: large pages are wanted; make them now (since Linux 6.1)."""
LARGE_PAGE = 1 << 21
LARGE_BYTES = 1 << 22
"""Smaller tensors stay in pages of the usual size."""


class CMatrix(ctypes.Structure):
    """`Matrix` of formats.h."""

    _fields_ = (
        ("kind", c_int32),
        ("group", c_int32),
        ("narrow", c_int32),
        ("rows", c_int64),
        ("columns", c_int64),
        ("weight", c_void_p),
        ("scale", c_void_p),
        ("offset", c_void_p),
        ("sums", c_void_p),
        ("bias", c_void_p),
    )


class StoredMatrix:
    """A linear layer's numbers on a CPU, which must stay where they are, and its products."""

    def __init__(
        self, kind: int, shape: tuple[int, int], weight: Tensor, bias: Float[Tensor, " out"] | None
    ) -> None:
        self._kept: list[Tensor] = []
        self.c = CMatrix(kind=kind, rows=shape[0], columns=shape[1])
        self.c.weight = self._place(weight, weight.dtype)
        if bias is not None:
            self.c.bias = self._place(bias, torch.float32)

    @classmethod
    def of_floats(cls, weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None) -> "StoredMatrix":
        """Of a weight in float32 or bfloat16."""
        kind = BFLOAT16 if weight.dtype == torch.bfloat16 else FLOAT32
        return cls(kind, (weight.shape[0], weight.shape[1]), weight, bias)

    @classmethod
    def of_int8(
        cls,
        codes: Integer[Tensor, "out in"],
        scale: Float[Tensor, " out"],
        bias: Float[Tensor, " out"] | None,
    ) -> "StoredMatrix":
        """Of signed bytes, `scale * code`."""
        matrix = cls(INT8, (codes.shape[0], codes.shape[1]), codes, bias)
        matrix.c.scale = matrix._place(scale, torch.float32)
        matrix.c.sums = matrix._place(codes.sum(dim=1, dtype=torch.int32), torch.int32)
        return matrix

    @classmethod
    def of_int4(
        cls,
        pairs: Integer[Tensor, "out half_in"],
        scale: Float[Tensor, "out groups"],
        offset: Float[Tensor, "out groups"],
        bias: Float[Tensor, " out"] | None,
    ) -> "StoredMatrix":
        """Of two codes from 0 to 15 a byte, the even channel in the low half: `scale * code + offset`."""
        columns = 2 * pairs.shape[1]
        matrix = cls(INT4, (pairs.shape[0], columns), pairs, bias)
        matrix.c.group, matrix.c.narrow = columns // scale.shape[1], int(scale.dtype == torch.bfloat16)
        matrix.c.scale = matrix._place(scale, scale.dtype)
        matrix.c.offset = matrix._place(offset, scale.dtype)
        return matrix

    @classmethod
    def of_packed(
        cls, weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None, *, plain: bool = False
    ) -> "StoredMatrix":
        """Of a bfloat16 weight, packed without loss; `fits_packing` tells which can be.

        Args:
            weight: as it is stored elsewhere.
            bias: or None.
            plain: by the form that every processor runs.
        """
        (rows, columns), given = weight.shape, weight.detach().contiguous()
        library, threads, bands, pieces = (
            load_library(plain=plain),
            torch.get_num_threads(),
            rows // BAND,
            -(-columns // SPAN),
        )
        starts = torch.empty(bands + 1, dtype=torch.long)
        headers = torch.empty(bands * pieces * library.g2vlm_size_of_header(), dtype=torch.uint8)
        found = (given.data_ptr(), rows, columns, starts.data_ptr(), headers.data_ptr())
        library.g2vlm_measure(*found, threads)
        size = bands * (columns // STRIP) * STRIP_BYTES
        both = zeros_in_large_pages(size + int(starts[-1]) + SLACK)
        library.g2vlm_pack(*found, both.data_ptr(), both[size:].data_ptr(), threads)
        matrix = cls(PACKED, (rows, columns), both, bias)
        matrix.c.scale = both[size:].data_ptr()
        matrix.c.offset = matrix._place(starts, torch.long)
        return matrix

    @property
    def num_bytes(self) -> int:
        """What it takes in memory."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._kept)

    def _place(self, tensor: Tensor, dtype: torch.dtype) -> int:
        """Where a tensor's numbers lie, or a copy's if they are of another type."""
        self._kept.append(contiguous(tensor, dtype))
        return self._kept[-1].data_ptr()

    def multiply(self, x: Float[Tensor, "rows in"], *, plain: bool = False) -> Float[Tensor, "rows out"]:
        """Product with a few rows, bias included, in float32.

        Args:
            x: any float type.
            plain: by the forms that every processor runs.
        """
        given = contiguous(x, torch.float32)
        out = torch.empty(len(given), self.c.rows)
        place, count = ctypes.byref(self.c), len(given)
        threads = torch.get_num_threads()
        library = load_library(plain=plain)
        if library.g2vlm_multiply(place, given.data_ptr(), count, out.data_ptr(), threads):
            raise MemoryError("Expected memory for a product of a few rows, got none.")
        return out

    def widened(
        self, begin: int, end: int, dtype: torch.dtype, *, plain: bool = False
    ) -> Float[Tensor, "rows in"]:
        """Some rows of an int8 or int4 matrix in bfloat16 or float32, or bands of a packed one in bfloat16.

        `plain`: packed ones by the form that every processor runs.
        """
        out = torch.empty(end - begin, self.c.columns, dtype=dtype)
        narrow, threads = int(dtype == torch.bfloat16), torch.get_num_threads()
        load_library(plain=plain).g2vlm_widen(
            ctypes.byref(self.c), begin, end, narrow, out.data_ptr(), threads
        )
        return out


def fits_packing(weight: Float[Tensor, "out in"]) -> bool:
    """Whether a matrix can be packed: bfloat16, its halves whole bands, its columns whole pairs of strips."""
    rows, columns = weight.shape
    return weight.dtype == torch.bfloat16 and rows % (2 * BAND) == 0 and columns % (2 * STRIP) == 0


def zeros_in_large_pages(size: int) -> Integer[Tensor, " size"]:
    """So many bytes, from the start of a page of megabytes on where the system has such."""
    if platform.system() != "Linux":
        return torch.zeros(size, dtype=torch.uint8)
    room = mmap.mmap(-1, size + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # Only a wish, and before the first touch, which is what decides.
    with contextlib.suppress(OSError):
        room.madvise(mmap.MADV_HUGEPAGE)
    found = torch.frombuffer(room, dtype=torch.uint8)
    start = -found.data_ptr() % LARGE_PAGE
    return found[start : start + size]


def contiguous(tensor: Shaped[Tensor, "*any"], dtype: torch.dtype) -> Shaped[Tensor, "*any"]:
    """The tensor itself if it is of that type and in order, else a copy; large ones in large pages."""
    found = tensor.detach().to(dtype).contiguous()
    use_large_pages(found)
    return found


def use_large_pages(tensor: Shaped[Tensor, "*any"]) -> None:
    """Ask the system to keep a large tensor in pages of megabytes, which are read a little faster.

    Only a wish: nothing happens where the system does not know it.
    """
    _advise(tensor, (MADV_HUGEPAGE, MADV_COLLAPSE))


def want_large_pages(tensor: Shaped[Tensor, "*any"]) -> None:
    """The same for a tensor that nothing was written to yet: it gets large pages as it is filled."""
    _advise(tensor, (MADV_HUGEPAGE,))


def _advise(tensor: Shaped[Tensor, "*any"], advices: tuple[int, ...]) -> None:
    num_bytes = tensor.numel() * tensor.element_size()
    if num_bytes < LARGE_BYTES or tensor.device.type != "cpu" or platform.system() != "Linux":
        return
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    size = tensor.data_ptr() + num_bytes - start
    for advice in advices:
        ctypes.CDLL(None).madvise(c_void_p(start), ctypes.c_size_t(size), advice)
