"""What the service needs of its guards, so that it can be tested without their processes and sockets."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from g2vlm.inputs.frame_choice import FrameChoice
from g2vlm.inputs.photos import PhotoSet
from g2vlm.inputs.reduction import Reduction
from g2vlm.server.guard.fetching import Fetched


@runtime_checkable
class Decoder(Protocol):
    """Decodes what clients send where it can do no harm; see `guard.decoding.DecodingPool`."""

    def decode(
        self,
        sources: Sequence[bytes | Path],
        *,
        keep: Reduction | None,
        frames: FrameChoice = ...,
        max_views: int | None = ...,
        is_cancelled: Callable[[], bool] = ...,
    ) -> PhotoSet:
        """Photos, or the frames of one video."""
        ...

    def close(self) -> None:
        """Decode nothing more."""
        ...


Fetch = Callable[[str], Fetched]
"""Fetches what an address leads to, or raises a `RefusedError` where that is not safe."""
