"""Options that say what is known about a scene: lengths, cameras, depth, masks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from g2vlm.cli.shared.terminal import say
from g2vlm.errors import InputError
from g2vlm.scene.metre.cameras import PoseUse
from g2vlm.scene.metre.depths import DepthUse

if TYPE_CHECKING:
    from g2vlm.inputs.known.photo_facts import PhotoFile
    from g2vlm.inputs.photos import PhotoSet
    from g2vlm.scene.metre.calibration import Calibration, KnownThings
    from g2vlm.scene.metre.lengths import KnownBaseline, KnownDistance
    from g2vlm.scene.scene import Scene

EXIF = "exif"
KNOWN_FIELDS = (
    "known_distance",
    "known_baseline",
    "depth",
    "depth_scale",
    "depth_fit",
    "poses",
    "pose_unit",
    "pose_fit",
    "gps",
    "intrinsics",
)
MASK_FIELDS = ("masks", "masks_inverted", "mask_sky")


class PoseUnit(StrEnum):
    """Unit of a pose file."""

    AUTO = "auto"
    METRES = "metres"
    UNKNOWN = "unknown"

    @property
    def is_metric(self) -> bool | None:
        """As `read_poses` takes it."""
        return {PoseUnit.AUTO: None, PoseUnit.METRES: True, PoseUnit.UNKNOWN: False}[self]


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """Parts of photos to leave out."""

    masks: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Black and white pictures named like the photos: what is black there is left out."""
    masks_inverted: bool = False
    """In masks white is left out instead of black."""
    mask_sky: bool = False
    """Leave out sky, found by its colour, smoothness and place (docs/outputs.md has the rule)."""

    @property
    def masks_anything(self) -> bool:
        """Whether any of these is asked for."""
        return self.masks is not None or self.mask_sky

    def mask_photos(self, photos: "PhotoSet") -> "PhotoSet":
        """The photos with parts left out, before they are looked at.

        Raises:
            InputError: masks that cannot be used.
        """
        from g2vlm.inputs.known.masks import mask_photos, mask_sky

        if self.masks is not None:
            photos, told = mask_photos(photos, self.masks, inverted=self.masks_inverted)
            say(told)
        if self.mask_sky:
            photos, told = mask_sky(photos)
            say(told)
        return photos

    def mask_scene(self, scene: "Scene") -> "Scene":
        """A scene with parts left out.

        Raises:
            InputError: masks that cannot be used.
        """
        from g2vlm.inputs.known.masks import mask_files, mask_of, read_mask, require_shape
        from g2vlm.inputs.known.sky import sky_mask

        if self.masks is not None:
            files = mask_files(self.masks)
            found = [mask_of(view.name, files) for view in scene.views]
            if not any(found):
                raise InputError(
                    f"Expected masks named like {scene.views[0].name} in {self.masks}, got none."
                )
            masks = [None if path is None else read_mask(path) ^ self.masks_inverted for path in found]
            for view, mask, path in zip(scene.views, masks, found, strict=True):
                if mask is not None and path is not None:
                    require_shape(view.original_size, mask, path)
            scene = scene.masked(masks)
            say(f"masks: {sum(mask is not None for mask in masks)} of {len(masks)} views")
        if self.mask_sky:
            sky = [sky_mask(np.ascontiguousarray(view.rgb)) for view in scene.views]
            views = tuple(
                replace(view, valid=view.valid & ~part) for view, part in zip(scene.views, sky, strict=True)
            )
            scene = replace(scene, views=views)
            say(f"sky: in {sum(bool(part.any()) for part in sky)} of {len(sky)} views")
        return scene


@dataclass(frozen=True, kw_only=True)
class KnownOptions(MaskOptions):
    """What is known about a scene."""

    known_distance: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="VIEW,u,v,VIEW,u,v,METRES")
    ] = ()
    """The true distance between two pixels of the original photos, which fixes the metre; may be repeated.
    VIEW is a number from 0 or a file name."""
    known_baseline: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="VIEW,VIEW,METRES")
    ] = ()
    """The true distance between two cameras; may be repeated."""
    depth: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Measured depth, dense or sparse, of some or all photos, named like them: 16-bit PNG, EXR or NPY; 0 is a
    hole."""
    depth_scale: Annotated[float | None, tyro.conf.arg(metavar="NUMBER")] = None
    """Values of these files per metre: 5000 for TUM, 256 for KITTI. Without it: 1000 for integers, 1 for
    floats."""
    depth_fit: DepthUse = DepthUse.SCENE
    """scene: one factor for all; view: each view's points take a factor of their own besides."""
    poses: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Known camera poses, into whose world the scene is brought: a TUM or KITTI trajectory, a COLMAP model
    folder, or transforms.json."""
    pose_unit: PoseUnit = PoseUnit.AUTO
    """Unit of the poses: metres, unknown, or auto: metres for trajectories, unknown for COLMAP and
    transforms.json unless g2vlm wrote them."""
    pose_fit: PoseUse = PoseUse.SIMILARITY
    """similarity: the scene is moved as a whole; given: each camera takes its given pose."""
    gps: bool = False
    """Take scale and axes (east, north, up) from the GPS data in the photos."""
    intrinsics: Annotated[str | None, tyro.conf.arg(metavar="FILE|fx,fy,cx,cy|exif")] = None
    """Known focal lengths and principal point: COLMAP's cameras.txt, transforms.json, a text file with a
    matrix K, four numbers in pixels of the photo, or exif for what the photos say themselves."""

    @property
    def knows_anything(self) -> bool:
        """Whether anything but masks is given."""
        given = (self.known_distance, self.known_baseline, self.depth, self.poses, self.intrinsics)
        return self.gps or any(each not in (None, ()) for each in given)

    def known_things(self, photos: Sequence["PhotoFile"]) -> "KnownThings":
        """What is known, read and checked; before any long work.

        Args:
            photos: of the views, in order.

        Raises:
            InputError: files or numbers that cannot be used.
        """
        from g2vlm.inputs.known.depths import read_depth_folder
        from g2vlm.inputs.known.intrinsics import read_intrinsics
        from g2vlm.inputs.known.photo_facts import exif_intrinsics, exif_positions
        from g2vlm.inputs.known.poses import read_poses
        from g2vlm.scene.metre.calibration import KnownThings

        intrinsics = None
        if self.intrinsics is not None:
            from_photos = self.intrinsics.lower() == EXIF
            intrinsics = exif_intrinsics(photos) if from_photos else read_intrinsics(self.intrinsics)
        return KnownThings(
            distances=tuple(parse_distance(text, photos) for text in self.known_distance),
            baselines=tuple(parse_baseline(text, photos) for text in self.known_baseline),
            depth=None if self.depth is None else read_depth_folder(self.depth, self.depth_scale),
            depth_use=self.depth_fit,
            poses=None if self.poses is None else read_poses(self.poses, is_metric=self.pose_unit.is_metric),
            pose_use=self.pose_fit,
            positions=exif_positions(photos) if self.gps else None,
            intrinsics=intrinsics,
        )


def tell_calibration(calibration: "Calibration") -> None:
    """Say what the known things said."""
    for finding in calibration.findings:
        say(str(finding))
    for conflict in calibration.conflicts:
        say(f"warning: {conflict}")


def photo_files(views: "PhotoSet | Scene") -> tuple["PhotoFile", ...]:
    """Name, file and size of the photos of a set or of a scene."""
    from g2vlm.inputs.known.photo_facts import PhotoFile
    from g2vlm.inputs.photos import PhotoSet

    if isinstance(views, PhotoSet):
        return tuple(PhotoFile(photo.name, photo.path, photo.size) for photo in views.photos)
    return tuple(
        PhotoFile(view.name, None if view.source_path is None else Path(view.source_path), view.original_size)
        for view in views.views
    )


def parse_distance(text: str, photos: Sequence["PhotoFile"]) -> "KnownDistance":
    """A `KnownDistance` of "VIEW,u,v,VIEW,u,v,METRES"."""
    from g2vlm.scene.metre.lengths import KnownDistance

    words = split_words(text, 7, "--known_distance VIEW,u,v,VIEW,u,v,METRES")
    a, b = view_number(words[0], photos), view_number(words[3], photos)
    ua, va, ub, vb, metres = numbers((*words[1:3], *words[4:7]), text)
    return KnownDistance(a, (ua, va), b, (ub, vb), metres)


def parse_baseline(text: str, photos: Sequence["PhotoFile"]) -> "KnownBaseline":
    """A `KnownBaseline` of "VIEW,VIEW,METRES"."""
    from g2vlm.scene.metre.lengths import KnownBaseline

    words = split_words(text, 3, "--known_baseline VIEW,VIEW,METRES")
    (metres,) = numbers(words[2:], text)
    return KnownBaseline(view_number(words[0], photos), view_number(words[1], photos), metres)


def split_words(text: str, count: int, form: str) -> list[str]:
    """The words between commas, if there are as many as expected.

    Raises:
        InputError: there are not.
    """
    words = [word.strip() for word in text.split(",")]
    if len(words) != count:
        raise InputError(f"Expected {form}, got {text!r}, which has {len(words)} parts instead of {count}.")
    return words


def view_number(word: str, photos: Sequence["PhotoFile"]) -> int:
    """The number of a view that is named by its number from 0, its file name, or that without ending.

    Raises:
        InputError: no view is named so.
    """
    for match in (lambda name: name, lambda name: Path(name).stem):
        if not word.isdigit() and (found := [i for i, p in enumerate(photos) if match(p.name) == word]):
            return found[0]
    if word.isdigit() and int(word) < len(photos):
        return int(word)
    raise InputError(
        f"Expected a view as a number from 0 to {len(photos) - 1} or a file name such as {photos[0].name}, "
        "got "
        f"{word!r}."
    )


def numbers(words: Sequence[str], text: str) -> list[float]:
    """Words as numbers.

    Raises:
        InputError: one is none.
    """
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise InputError(f"Expected numbers in {text!r}: {error}.") from error
