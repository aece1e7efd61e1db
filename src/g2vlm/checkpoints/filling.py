"""Copying stored numbers from a mapped file into weights, in pieces, on several threads.

Nothing lies in memory but the weights: a piece is converted on its way from the mapping to its place.
"""

import ctypes
import mmap
import platform
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from g2vlm.model.native.matrix import want_large_pages

PIECE_NUMBERS = 1 << 23
"""Numbers copied by one thread at a time: many beside what Python costs, few beside what a thread copies."""
MOST_THREADS = 16
"""More threads than this do not read a page cache or a disk any faster."""
MADV_WILLNEED = 3
"""Of POSIX: read from the disk what is not in memory yet."""


@dataclass(frozen=True)
class Piece:
    """Numbers that follow each other both in a file and in a weight."""

    source: Float[Tensor, " numbers"]
    """Mapped from the file, in the type that it stores."""
    target: Float[Tensor, " numbers"]
    """Part of a weight, in the weight's type, on any device."""

    def copy(self) -> None:
        """Read, convert and place."""
        _read_ahead(self.source)
        if self.target.device.type != "cuda":
            self.target.copy_(self.source)
            return
        # Converted before it travels, in memory that the GPU fetches from by itself.
        staged = torch.empty(self.source.shape, dtype=self.target.dtype, pin_memory=True)
        self.target.copy_(staged.copy_(self.source))


def pieces_of(sources: Sequence[Shaped[Tensor, "..."]], target: Shaped[Tensor, "..."]) -> list[Piece]:
    """How to fill a weight with stored tensors, one behind the other.

    Args:
        sources: mapped from the file; together as many numbers as the weight has.
        target: contiguous; nothing was written to it yet.
    """
    want_large_pages(target)
    flat, start, pieces = target.view(-1), 0, []
    for source in sources:
        for part in source.reshape(-1).split(PIECE_NUMBERS):
            pieces.append(Piece(part, flat[start : start + len(part)]))
            start += len(part)
    assert start == len(flat), "the shapes of stored tensors were checked before"
    return pieces


def copy_all(jobs: Iterable[Sequence[Piece]], on_done: Callable[[int], None] = lambda count: None) -> None:
    """Copy the pieces of every weight, on as many threads as torch uses.

    Args:
        jobs: the pieces of each weight; copying begins while later ones are still being made.
        on_done: called with the number of weights that are complete, by this thread.
    """
    threads = min(torch.get_num_threads(), MOST_THREADS)
    with ThreadPoolExecutor(threads, "g2vlm-loading") as pool:
        try:
            running = [[pool.submit(piece.copy) for piece in pieces] for pieces in jobs]
            for count, copies in enumerate(running, start=1):
                for copy in copies:
                    copy.result()
                on_done(count)
        except BaseException:
            # Also when interrupted: what has not begun is left.
            pool.shutdown(cancel_futures=True)
            raise


def _read_ahead(source: Shaped[Tensor, " numbers"]) -> None:
    """Have the disk read a whole piece at once, not page by page as each is touched. Only a wish."""
    if platform.system() != "Linux":
        return
    start = source.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    size = source.data_ptr() + source.numel() * source.element_size() - start
    ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), MADV_WILLNEED)
