"""Places inside long passes where whoever runs them may do something else for a while, or stop.

A pass over many photos takes seconds to minutes. Between its layers it calls `pause`, which does nothing
unless its thread runs inside of `pausing`. What is done there must not touch the tensors of the pass.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

_own = threading.local()


@contextmanager
def pausing(between_pieces: Callable[[], None]) -> Iterator[None]:
    """Have something called between the pieces of the passes that this thread runs.

    Args:
        between_pieces: its errors end the pass. Passes that it runs itself do not pause, unless it asks so.
    """
    before = getattr(_own, "between_pieces", None)
    _own.between_pieces = between_pieces
    try:
        yield
    finally:
        _own.between_pieces = before


def pause() -> None:
    """Let the thread's `pausing` have its turn."""
    # Compiled code is recorded once for all callers, so that a pause inside would be of one of them.
    if torch.compiler.is_compiling():
        return
    between_pieces = getattr(_own, "between_pieces", None)
    if between_pieces is None:
        return
    _own.between_pieces = None
    try:
        between_pieces()
    finally:
        _own.between_pieces = between_pieces
