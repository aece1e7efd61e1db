"""What one browser may ask of a viewer that several share."""

from dataclasses import dataclass

from g2vlm.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Bounds on what is uploaded and kept.

    Raises:
        InputError: on construction, a number out of range.
    """

    max_sessions: int = 16
    """Browsers at the same time; further ones are asked to come back later."""
    max_files: int = 64
    """Files that one browser may upload for a scene."""
    max_upload_mb: int = 500
    """Megabytes of all files that one browser uploads for a scene."""
    max_views: int = 16
    """Views that a reconstruction uses, spread evenly over more photos or the frames of a video."""
    max_duration_s: int = 600
    """Longest video, in seconds."""
    idle_minutes: int = 60
    """A browser in which nothing happens for so long gives back its scene and files."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        # Options of a command inherit these among their own.
        for name in Limits.__dataclass_fields__:
            if (value := getattr(self, name)) < 1:
                raise InputError(f"Expected --{name} of at least 1, got {value}.")
