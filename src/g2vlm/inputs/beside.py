"""Files that lie beside photos and show the same: masks, depth maps, raw versions. They are no views."""

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from g2vlm.errors import InputError
from g2vlm.inputs.decode import decoding
from g2vlm.inputs.formats.kinds import RAW_SUFFIXES, FileKind, kind_of, read_head

_WORDS = (
    *(
        "mask",
        "masks",
        "matte",
        "alpha",
        "trimap",
        "silhouette",
        "depth",
        "depths",
        "depthmap",
        "disp",
        "disparity",
    ),
    *(
        "seg",
        "segm",
        "segmentation",
        "semantic",
        "semantics",
        "instance",
        "instances",
        "panoptic",
        "label",
        "labels",
    ),
    *("normal", "normals", "conf", "confidence", "flow", "pointmap"),
)
_MARK = re.compile(rf"(?:^|(?<=[\W_\d]))(?:{'|'.join(_WORDS)})(?=$|[\W_\d])", re.IGNORECASE)
_PHOTO_WORD = re.compile(
    r"(?:^|(?<=[\W_\d]))(?:rgb|colou?r|images?|img|frames?|photos?)(?=$|[\W_\d])", re.IGNORECASE
)
_SEPARATORS = re.compile(r"[\W_]+")


def left_beside(photos: Sequence[Path]) -> frozenset[Path]:
    """Find what lies beside the photos of a folder without being one.

    That is: a file named as a mask, depth map or the like of a photo there (`0001_mask.png` beside
    `0001.jpg`, or gray ones under other names), gray pictures of 1, 16 or 32 bits among photos in colour,
    gray pictures under the name of a photo in colour, and raw versions of a photo of the same name. A folder
    of nothing but such files has nothing beside anything: all stay.

    Args:
        photos: Files of one folder.
    """
    marked = {path for path in photos if _MARK.search(path.stem)}
    gray = {path: bits for path in photos if (bits := _gray_bits(path)) is not None}
    colourful = [path for path in photos if path not in marked and path not in gray and not path.is_dir()]
    if not colourful:
        return frozenset(_raw_versions(photos))
    keys = {_key(path.stem) for path in colourful}
    # 0001.png beside 0001.jpg, or 0001.jpg.png.
    twins = {path.stem.casefold() for path in colourful} | {path.name.casefold() for path in colourful}
    beside = {
        path
        for path in photos
        if (path in marked and (_key(path.stem) in keys or path in gray))
        or gray.get(path, 8) != 8
        or (path in gray and path.stem.casefold() in twins)
    }
    return frozenset(beside | _raw_versions(photos))


def _raw_versions(photos: Sequence[Path]) -> set[Path]:
    """Raw photos beside a developed one of the same name."""
    raw = {path for path in photos if path.suffix.lower() in RAW_SUFFIXES}
    developed = {path.stem.casefold() for path in photos if path not in raw}
    return {path for path in raw if path.stem.casefold() in developed}


def _key(stem: str) -> str:
    """What a photo's name and those of its mask and depth map have in common."""
    return _SEPARATORS.sub("", _PHOTO_WORD.sub("", _MARK.sub("", stem))).casefold()


def _gray_bits(path: Path) -> int | None:
    """Bits per pixel of a gray or indexed picture, by its header; none for colours."""
    head = read_head(path)
    if kind_of(head, path.suffix) is not FileKind.IMAGE:
        return None
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return {0: head[24], 3: 8}.get(head[25]) if len(head) > 25 else None
    try:
        with decoding(), Image.open(path) as image:
            mode = image.mode
    except (InputError, OSError):
        return None
    return {"1": 1, "L": 8, "P": None if path.suffix.lower() == ".gif" else 8, "I": 32, "F": 32}.get(
        mode, 16 if mode.startswith("I;16") else None
    )
