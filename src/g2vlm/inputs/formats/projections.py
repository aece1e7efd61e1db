"""Pictures that no pinhole camera took: panoramas and fisheye photos, told by what they say of themselves."""

import re

from g2vlm.inputs.formats.exif import Metadata

_PROJECTION = re.compile(rb"(?:GPano|GSpherical|Camera):ProjectionType(?:\s*=\s*[\"']|\s*>)\s*([A-Za-z]+)")
_FISHEYE = re.compile(r"fish[ -]?eye|\bVR180\b", re.IGNORECASE)
_PANORAMA_CAMERAS = re.compile(r"ricoh theta|insta360|gear 360|qoocam|madventure|kandao|vuze", re.IGNORECASE)
_PINHOLE = ("perspective", "rectilinear", "flat")


def unusual_projection(metadata: Metadata, size: tuple[int, int]) -> str | None:
    """Say what a picture is, if it is no ordinary photo.

    Args:
        metadata: What the file says.
        size: (width, height) in pixels.

    Returns:
        "an equirectangular panorama", "a fisheye photo" and the like; none for ordinary photos.
    """
    named = projection_name(metadata.xmp)
    if named is not None:
        return _article(named)
    if _PANORAMA_CAMERAS.search(metadata.camera) and size[0] == 2 * size[1]:
        return "an equirectangular panorama"
    return "a fisheye photo" if _FISHEYE.search(metadata.camera) else None


def projection_name(packet: bytes) -> str | None:
    """The projection that an XMP packet names, in lower case; none for ordinary photos."""
    found = _PROJECTION.search(packet)
    if found is None:
        return None
    name = found[1].decode("ascii").lower()
    return None if name in _PINHOLE else name


def _article(name: str) -> str:
    if "fisheye" in name:
        return "a fisheye photo"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name} panorama"
