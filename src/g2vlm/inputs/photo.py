"""One view before it is brought to the size of an encoder, with as few pixels in memory as possible."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageChops

Rendition = tuple[tuple[int, int], Image.Resampling]
"""A picture in another size: (width, height) in pixels, and Pillow's filter that leads to it."""


@dataclass(frozen=True)
class PhotoParts:
    """What a photo holds, to carry it into another process."""

    name: str
    """As `Photo.name`."""

    size: tuple[int, int]
    """(width, height) at full size, in pixels."""

    time_s: float | None
    """As `Photo.time_s`."""

    frame_index: int | None
    """As `Photo.frame_index`."""

    image: Image.Image | None
    """All pixels; none if only smaller sizes are held."""

    renditions: Mapping[Rendition, Image.Image]
    """The sizes that are held."""

    masks: Mapping[tuple[int, int], np.ndarray]
    """What is visible in these sizes, (height, width) bool; empty if everything is."""

    visible: Image.Image | None
    """Mode L, 0 where the picture is fully transparent; none if it is transparent nowhere."""


class Photo:
    """An upright RGB picture with 8 bits per channel, and where it came from.

    It holds its pixels at full size, or, after `reduced`, only the sizes that are needed, each computed from
    all pixels; `image` then decodes the file again. Treat photos as immutable.
    """

    def __init__(
        self,
        image: Image.Image,
        name: str,
        time_s: float | None = None,
        *,
        path: Path | None = None,
        frame_index: int | None = None,
        visible: Image.Image | None = None,
    ) -> None:
        """Hold a picture at full size.

        Args:
            image: Upright RGB.
            name: Unique within a set: the file name, or video name and frame number.
            time_s: Time in the video in seconds, none for a photo.
            path: The photo or video file, absolute; none for an image from memory or a camera.
            frame_index: Number of the frame in the video or of the picture in the file; none for a photo.
            visible: Mode L, 0 where the picture is fully transparent; none if it is transparent nowhere.
        """
        self.name = name
        self.time_s = time_s
        self.path = path
        self.frame_index = frame_index
        self.size: tuple[int, int] = image.size
        """(width, height) at full size, in pixels."""
        self._image: Image.Image | None = image
        self._visible = visible
        self._again: Callable[[], Image.Image] | None = None
        self._renditions: dict[Rendition, Image.Image] = {}
        self._masks: dict[tuple[int, int], np.ndarray] = {}

    def __repr__(self) -> str:
        return f"Photo({self.name!r}, {self.size[0]}x{self.size[1]})"

    @classmethod
    def from_parts(cls, parts: PhotoParts, again: Callable[[], Image.Image]) -> "Photo":
        """A photo that another process decoded.

        Args:
            parts: What it holds.
            again: Decodes the picture at full size, for whoever needs it later.
        """
        photo = object.__new__(cls)
        photo.name, photo.size = parts.name, parts.size
        photo.time_s, photo.path, photo.frame_index = parts.time_s, None, parts.frame_index
        photo._image, photo._visible, photo._again = parts.image, parts.visible, again
        photo._renditions, photo._masks = dict(parts.renditions), dict(parts.masks)
        return photo

    def parts(self) -> PhotoParts:
        """What the photo holds, for `from_parts`."""
        return PhotoParts(
            name=self.name,
            size=self.size,
            time_s=self.time_s,
            frame_index=self.frame_index,
            image=self._image,
            renditions=self._renditions,
            masks=self._masks,
            visible=self._visible,
        )

    @property
    def image(self) -> Image.Image:
        """The picture at full size; decoded anew at each access where only smaller sizes are held.

        Raises:
            InputError: The file has gone or changed in the meantime.
        """
        if self._image is not None:
            return self._image
        assert self._again is not None
        return self._again()

    def renamed(self, name: str) -> "Photo":
        """The same photo under another name."""
        other = object.__new__(Photo)
        other.__dict__.update(self.__dict__, name=name)
        return other

    def resized(self, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
        """The picture in another size, computed from all its pixels.

        Args:
            size: (width, height) in pixels.
            resample: Pillow's filter.
        """
        held = self._renditions.get((size, resample))
        return self.image.resize(size, resample) if held is None else held

    def visible(self, size: tuple[int, int]) -> Bool[np.ndarray, "height width"] | None:
        """Which pixels show something once the picture is resized.

        Args:
            size: (width, height) in pixels.

        Returns:
            False where more than half of a pixel is fully transparent; none if all show something.
        """
        if self._visible is None:
            return None
        held = self._masks.get(size)
        if held is None:
            held = np.asarray(self._visible.resize(size, Image.Resampling.BOX)) >= 128
        return held

    def smallest(self) -> Image.Image:
        """The smallest picture at hand: the whole one if all its pixels are held."""
        if self._image is not None or not self._renditions:
            return self.image
        return min(self._renditions.values(), key=lambda held: held.width * held.height)

    def masked(self, mask: Bool[np.ndarray, "height width"]) -> "Photo":
        """The same photo, transparent besides where a mask is False.

        Args:
            mask: of the whole photo, at any resolution.
        """
        other = self.renamed(self.name)
        picture = Image.fromarray(mask.astype(np.uint8) * 255)
        if self._visible is not None:
            small = picture.resize(self._visible.size, Image.Resampling.BOX)
            other._visible = ImageChops.darker(self._visible, small)
        else:
            other._visible = picture
        other._masks = {}
        for size, held in self._masks.items():
            other._masks[size] = held & (np.asarray(picture.resize(size, Image.Resampling.BOX)) >= 128)
        return other

    def reduced(self, renditions: Iterable[Rendition], again: Callable[[], Image.Image]) -> "Photo":
        """The same photo holding only some sizes.

        Args:
            renditions: What stays in memory.
            again: Decodes the picture at full size, upright, for whoever needs it later.
        """
        other = self.renamed(self.name)
        other._renditions = {(size, how): self.image.resize(size, how) for size, how in renditions}
        other._masks = {}
        if self._visible is not None:
            sizes = {size for size, _ in other._renditions}
            masks = {size: self.visible(size) for size in sizes}
            other._masks = {size: mask for size, mask in masks.items() if mask is not None}
            # At a quarter of the width a mask takes a sixteenth of the room, and sizes asked for later fit.
            small = (max(1, self.size[0] // 4), max(1, self.size[1] // 4))
            other._visible = self._visible.resize(small, Image.Resampling.BOX)
        other._image, other._again = None, again
        return other
