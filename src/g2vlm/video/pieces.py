"""Pieces of a long reconstruction on disk: written once, completely or not at all, read one at a time."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image

from g2vlm.errors import InputError, OutputError
from g2vlm.inputs.decode import Photo
from g2vlm.inputs.geometric import GeometricImages
from g2vlm.scene.storage import ORIGIN_KEYS, origin_columns, origin_fields
from g2vlm.scene.view import View
from g2vlm.scene.writing import atomic_path

_SETTINGS = "settings.json"
_VERSION = 1
_COLUMNS = ("rgb", "points_camera", "T_world_camera", "K", "confidence", "valid", "T_model_original")
_KEYS = (*_COLUMNS, "frames", "descriptors", "names", "times_s", "original_sizes")


@dataclass(frozen=True, eq=False)
class Piece:
    """Some frames reconstructed together, in a frame and unit of their own."""

    frames: tuple[int, ...]
    """Numbers of the frames in the video, counted from 0."""
    views: tuple[View, ...]
    """One for each frame; "world" is the piece's own frame."""
    descriptors: Float32[np.ndarray, "views channels"]
    """What each view looks like, for finding places seen again."""

    def __post_init__(self) -> None:
        if not len(self.frames) == len(self.views) == len(self.descriptors) > 0:
            raise InputError(
                f"Expected as many views and descriptors as frames, got {len(self.frames)} frames, "
                f"{len(self.views)} views, {len(self.descriptors)} descriptors."
            )

    def view_of(self, frame: int) -> View:
        """The view of a frame of the video."""
        return self.views[self.frames.index(frame)]


def photos_of(views: tuple[View, ...]) -> tuple[tuple[Photo, ...], GeometricImages]:
    """The network's input that views were reconstructed from; exact, since colours are kept in 8 bits."""
    photos = tuple(
        Photo(
            Image.fromarray(view.rgb),
            view.name,
            view.time_s,
            path=None if view.source_path is None else Path(view.source_path),
            frame_index=view.frame_index,
        )
        for view in views
    )
    pixels = torch.stack([torch.from_numpy(view.rgb.copy()).permute(2, 0, 1) for view in views])
    images = GeometricImages(
        pixels=pixels.float().div(255.0),
        valid=torch.stack([torch.from_numpy(view.valid.copy()) for view in views]),
        T_model_original=torch.stack([torch.from_numpy(view.T_model_original.copy()) for view in views]),
        original_sizes=tuple(view.original_size for view in views),
    )
    return photos, images


class PieceFolder:
    """The folder of one long reconstruction.

    Args:
        path: created if needed.
        settings: everything that the pieces depend on.

    Raises:
        OutputError: the folder holds pieces of other settings, or cannot be written.
    """

    def __init__(self, path: Path, settings: Mapping[str, object]) -> None:
        self.path = path
        wanted = {"version": _VERSION, **settings}
        file = path / _SETTINGS
        if file.is_file():
            _require_same(file, json.loads(json.dumps(wanted)))
        else:
            with atomic_path(file) as temporary:
                temporary.write_text(json.dumps(wanted, indent=1))

    def file(self, name: str) -> Path:
        """Where the piece of that name is."""
        return self.path / f"{name}.npz"

    def holds(self, name: str) -> bool:
        """Whether the piece has been finished."""
        return self.file(name).is_file()

    def write(self, name: str, piece: Piece) -> None:
        """Write a piece; an interruption leaves either all of it or nothing."""
        views = piece.views
        arrays = {column: np.stack([getattr(view, column) for view in views]) for column in _COLUMNS}
        times = [np.nan if view.time_s is None else view.time_s for view in views]
        with atomic_path(self.file(name)) as temporary:
            np.savez(
                temporary,
                allow_pickle=False,
                frames=np.array(piece.frames, dtype=np.int64),
                descriptors=piece.descriptors,
                names=np.array([view.name for view in views]),
                times_s=np.array(times, dtype=np.float64),
                original_sizes=np.array([view.original_size for view in views], dtype=np.int64),
                **origin_columns(views),
                **arrays,
            )

    def require_picture(self, name: str, picture: UInt8[np.ndarray, "height width 3"]) -> None:
        """Check that a finished piece begins with this picture, as prepared for the network.

        Raises:
            OutputError: it is of other frames.
            InputError: it is damaged.
        """
        stored = self._load(name, "rgb")["rgb"][0]
        if not np.array_equal(stored, picture):
            raise OutputError(
                f"Expected to resume in {self.path}, but {name} shows other frames: choose another folder, "
                "or remove this one."
            )

    def read(self, name: str) -> Piece:
        """Read a piece.

        Raises:
            InputError: it is not there, or damaged.
        """
        return _piece(self._load(name))

    def _load(self, name: str, *keys: str) -> dict[str, np.ndarray]:
        """Some arrays of a piece, or all."""
        try:
            with np.load(self.file(name), allow_pickle=False) as file:
                wanted = keys or (*_KEYS, *(key for key in ORIGIN_KEYS if key in file))
                return {key: file[key] for key in wanted}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                f"Expected a piece of a long reconstruction in {self.file(name)}, got {error}: remove that "
                "file and run again."
            ) from error


def _require_same(file: Path, wanted: dict[str, object]) -> None:
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise OutputError(f"Expected settings in {file}, got damaged text: remove the folder.") from error
    changed = [key for key in sorted({*wanted, *found}) if wanted.get(key) != found.get(key)]
    if changed:
        listed = "; ".join(f"{key} was {found.get(key)!r}, now {wanted.get(key)!r}" for key in changed)
        raise OutputError(
            f"Expected to resume in {file.parent}, but it holds another reconstruction ({listed}): choose "
            "another folder, or remove this one."
        )


def _piece(arrays: dict[str, np.ndarray]) -> Piece:
    views = tuple(
        View(
            name=str(arrays["names"][index]),
            original_size=(int(arrays["original_sizes"][index][0]), int(arrays["original_sizes"][index][1])),
            time_s=None if np.isnan(arrays["times_s"][index]) else float(arrays["times_s"][index]),
            **{column: arrays[column][index] for column in _COLUMNS},
            **origin_fields(arrays, index),
        )
        for index in range(len(arrays["frames"]))
    )
    return Piece(tuple(int(frame) for frame in arrays["frames"]), views, arrays["descriptors"])
