"""Predictions in files: those of a run that was told to keep them, or of somebody else's method.

A folder holds one `<scene>.npz` for each scene (slashes of its name become folders) with any of

    depth            (views, height, width) float, z-depth
    points_camera    (views, height, width, 3) float, camera axes
    valid            (views, height, width) bool
    T_world_camera   (views, 4, 4), OpenCV axes; NaN for cameras that were not found
    T_first_second   (pairs, 4, 4), relative poses of all pairs a < b, of methods that know pairs only
    K                (views, 3, 3), in pixels of the maps (of the photos where there are no maps)
    T_model_original (views, 3, 3), from pixels of the photo to pixels of the maps

and `answers.jsonl` with lines {"scene": ..., "question": ..., "answer": ..., "sight": "full"}. Maps without
`T_model_original` are taken to cover the whole photo.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from g2vlm.errors import InputError
from g2vlm.evaluation.prediction import Prediction
from g2vlm.evaluation.predictors.interface import Questions, Views
from g2vlm.scene.writing import atomic_path

ANSWERS = "answers.jsonl"
_SHAPES: dict[str, tuple[int | None, ...]] = {
    "depth": (None, None),
    "points_camera": (None, None, 3),
    "valid": (None, None),
    "T_world_camera": (4, 4),
    "T_first_second": (4, 4),
    "K": (3, 3),
    "T_model_original": (3, 3),
}
_ARRAYS = tuple(_SHAPES)


def place_of(folder: Path, scene: str) -> Path:
    """The file of a scene."""
    parts = [part for part in scene.replace(":", "_").split("/") if part not in ("", ".", "..")]
    return folder.joinpath(*parts[:-1], f"{parts[-1]}.npz")


def write_prediction(folder: Path, scene: str, prediction: Prediction) -> None:
    """Write what a method says about one scene, completely or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    arrays = {name: getattr(prediction, name) for name in _ARRAYS}
    if prediction.points_camera is not None:
        arrays["depth"] = None  # it is the points' z
    known = {name: array for name, array in arrays.items() if array is not None}
    path = place_of(folder, scene)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **known)


@dataclass(frozen=True)
class SavedPredictions:
    """Reads a folder of predictions.

    Raises:
        InputError: there is no such folder.
    """

    folder: Path

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise InputError(f"Expected a folder of predictions, got {self.folder}, which is none.")

    def reconstruct(self, views: Views) -> Prediction:
        """What the file of the scene says.

        Raises:
            InputError: there is no file for the scene, or it holds something else.
        """
        path = place_of(self.folder, views.scene)
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in _ARRAYS if name in stored.files}
        except (OSError, ValueError) as error:
            raise InputError(f"Expected predictions of {views.scene} in {path}: {error}.") from error
        _check(arrays, len(views.photos), path)
        maps = arrays.get("points_camera", arrays.get("depth"))
        if maps is not None and "T_model_original" not in arrays:
            arrays["T_model_original"] = covering(views.sizes, maps.shape[1:3])
        return Prediction(original_sizes=views.sizes, **arrays)

    def answer(self, asked: Questions) -> Sequence[str]:
        """The stored answers to the questions of the scene.

        Raises:
            InputError: a question was not answered, or the file is none.
        """
        missing = [text for text in asked.texts if (asked.scene, text) not in self._answers]
        if missing:
            raise InputError(
                f"Expected an answer in {self.folder / ANSWERS} for scene {asked.scene!r} to: "
                f"{missing[0][:200]!r}."
            )
        return [self._answers[asked.scene, text] for text in asked.texts]

    @cached_property
    def _answers(self) -> dict[tuple[str, str], str]:
        path = self.folder / ANSWERS
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
            full = [line for line in lines if line.get("sight", "full") == "full"]
            return {(str(line["scene"]), line["question"]): line["answer"] for line in full}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f'Expected lines with "scene", "question" and "answer" in {path}: {error!r}.'
            ) from error


def _check(arrays: dict[str, np.ndarray], num_views: int, path: Path) -> None:
    """Shapes and types as the head of this file lists them."""
    pairs = num_views * (num_views - 1) // 2
    for name, array in arrays.items():
        count, rest = (pairs, (4, 4)) if name == "T_first_second" else (num_views, _SHAPES[name])
        right_kind = array.dtype == np.bool_ if name == "valid" else array.dtype.kind == "f"
        fits = array.ndim == 1 + len(rest) and len(array) == count and right_kind
        fits = fits and all(want in (None, got) for want, got in zip(rest, array.shape[1:], strict=True))
        if not fits:
            raise InputError(
                f"Expected {name} of {count} entries for {num_views} photos in {path}, as docs/evaluation.md "
                f"says; got {array.shape} of {array.dtype}."
            )


def covering(sizes: tuple[tuple[int, int], ...], shape: tuple[int, ...]) -> np.ndarray:
    """Affines from whole photos to whole maps of (height, width), by the half-pixel rule."""
    height, width = shape
    affines = np.tile(np.eye(3), (len(sizes), 1, 1))
    for k, (columns, rows) in enumerate(sizes):
        sx, sy = width / columns, height / rows
        affines[k] = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])
    return affines
