"""Dense results on disk instead of in memory, for scenes of very many views."""

import math
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from g2vlm.errors import OutputError
from g2vlm.model.network import Allocate


def in_memory(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An unfilled tensor in the memory of the CPU."""
    return torch.empty(shape, dtype=dtype)


def on_disk(folder: str | os.PathLike[str]) -> Allocate:
    """What makes unfilled tensors whose numbers lie in files of `folder`.

    The system keeps as much of them in memory as is free, and no more. The files have no names (on Windows:
    go when closed), so that nothing stays behind, however the program ends.

    Raises:
        OutputError: now, if nothing can be written there; later, if a file does not fit.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise OutputError(
            f"Expected to write into {place}, got {error.strerror}: choose another folder."
        ) from error

    def allocate(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        num_bytes = math.prod(shape) * dtype.itemsize
        try:
            with tempfile.TemporaryFile(dir=place) as file:
                # Space is taken now: a full disk must be an error here, not a crash while writing later.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, num_bytes)
                numbers = np.memmap(file, np.uint8, "w+", shape=(num_bytes,))
        except OSError as error:
            raise OutputError(
                f"Expected room for {num_bytes / 1e9:.2f} GB in {place}, got {error.strerror}: choose "
                "another folder."
            ) from error
        return torch.from_numpy(numbers).view(dtype).view(shape)

    return allocate
