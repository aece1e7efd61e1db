"""What stays in memory of each photo: the sizes that the encoders take, not its megapixels."""

from dataclasses import dataclass

from PIL import Image

from g2vlm.errors import InputError
from g2vlm.inputs.canvas import Fit, canvas_size, place_photo
from g2vlm.inputs.photo import Rendition

UNUSUAL_RATIO = 8.0
"""Longer side over the shorter one from which users are warned."""

TINY_SHARE = 1 / 8
"""Shorter side, as a share of the common width, below which users are warned."""

_ORDINARY_RATIO = 0.75


@dataclass(frozen=True)
class Reduction:
    """Sizes that photos are needed in. The defaults are those of the released model."""

    width: int = 518
    """Common width for the geometric encoder, in pixels."""

    patch: int = 14
    """Side of its patches."""

    fit: Fit = Fit.STRETCH
    """What it does with photos of another shape than the first."""

    semantic_side: int | None = 768
    """Side of the square for the semantic encoder; none if no questions will be asked."""

    def renditions(self, size: tuple[int, int], first_size: tuple[int, int]) -> tuple[Rendition, ...]:
        """Sizes to keep of one photo.

        Args:
            size: (width, height) of the upright photo.
            first_size: That of the first photo, which decides the common one.

        Raises:
            InputError: The first photo is too flat.
        """
        canvas = canvas_size(first_size, width=self.width, patch=self.patch)
        place = place_photo(size, canvas, self.patch, self.fit)
        geometric = ((place.width, place.height), Image.Resampling.LANCZOS)
        if self.semantic_side is None:
            return (geometric,)
        side = self.semantic_side
        return (geometric, ((side, side), Image.Resampling.BICUBIC))

    def check_first(self, name: str, size: tuple[int, int]) -> str | None:
        """Look at the shape of the first photo, which becomes that of all views.

        Args:
            name: Of the photo.
            size: (width, height) of it, upright.

        Returns:
            What to tell the user; none for ordinary photos.

        Raises:
            InputError: It is smaller than a patch, or too flat.
        """
        if min(size) < self.patch:
            raise InputError(
                f"Expected photos of at least {self.patch}x{self.patch} pixels, got {name} of "
                f"{size[0]}x{size[1]}: a view is cut into patches of {self.patch} pixels."
            )
        if max(size) <= UNUSUAL_RATIO * min(size):
            return None
        width, height = canvas_size(size, width=self.width, patch=self.patch)
        patches = width * height // self.patch**2
        ordinary = (self.width // self.patch) * round(_ORDINARY_RATIO * self.width / self.patch)
        # Linear layers cost as many times more as there are patches, attention the square of that.
        least, most = patches / ordinary, (patches / ordinary) ** 2
        costs = (
            f" and take {least:.0f} to {most:.0f} times as long as of an ordinary photo"
            if least > 1.5
            else ""
        )
        return (
            f"{name} is {size[0]}x{size[1]}, longer than {UNUSUAL_RATIO:g} to 1, and comes first: all views "
            f"become {width}x{height} pixels{costs}. Crop it, or put another photo first."
        )
