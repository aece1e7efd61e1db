"""Photos and videos of this machine that are sent to a service."""

from collections.abc import Sequence
from pathlib import Path

from g2vlm.errors import InputError
from g2vlm.inputs.listing import expanded, list_folder, list_pattern

Photos = str | Path | Sequence[str | Path]
"""A folder, pattern, photo or video, or a list of photos."""


def files_of(photos: Photos) -> list[Path]:
    """The files of this machine that a source names.

    Raises:
        InputError: nothing is there.
    """
    if not isinstance(photos, str | Path):
        found = [Path(one) for one in photos]
    else:
        path = expanded(photos)
        if path.is_dir():
            listing = list_folder(path)
        elif path.exists():
            return [path]
        else:
            listing = list_pattern(path)
        found = list(dict.fromkeys(one.item for one in listing.candidates if isinstance(one.item, Path)))
    missing = [path for path in found if not path.is_file()]
    if missing or not found:
        raise InputError(f"Expected photos or a video, found nothing at {missing[0] if missing else photos}.")
    return found
