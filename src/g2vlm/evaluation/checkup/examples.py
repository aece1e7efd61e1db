"""The example photos of the package, and the truth about them."""

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from g2vlm.errors import InputError
from g2vlm.evaluation.geometry import SceneTruth
from g2vlm.inputs.photo import Photo
from g2vlm.inputs.photos import load_photos

FOLDER = Path(str(resources.files("g2vlm") / "examples" / "recon_truth"))
"""Written by `scripts/render_examples.py` in the layout of `g2vlm train --watch`."""


@dataclass(frozen=True)
class ExampleQuestion:
    """A question about all example photos."""

    text: str
    answer: str
    """A letter or a number."""
    reasoned: str
    """What is seen, then the answer."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Photos whose truth is known."""

    photos: tuple[Photo, ...]
    truth: SceneTruth
    """At the size of the photos; metres."""
    questions: tuple[ExampleQuestion, ...]


def read_examples(folder: Path = FOLDER) -> Examples:
    """Read the photos and their truth.

    Raises:
        InputError: they are missing or cannot be read: the installation is damaged.
    """
    try:
        listed = json.loads((folder / "frames.json").read_text(encoding="utf-8"))
        frames = [listed["frames"][name] for name in listed["groups"][0]]
        depths = [_depth_m(folder / frame["depth"], frame["depth_unit_m"]) for frame in frames]
        truth = SceneTruth(
            depth=torch.stack(depths),
            valid=torch.stack(depths) > 0,
            T_world_camera=torch.tensor([frame["T_world_camera"] for frame in frames]),
            K=torch.tensor([frame["K"] for frame in frames]),
        )
        questions = tuple(ExampleQuestion(**question) for question in listed["questions"])
        photos = load_photos([(folder / frame["image"]).resolve(strict=True) for frame in frames]).photos
        return Examples(photos, truth, questions)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"Expected the truth about the example photos in {folder}: {error!r}.") from error


def _depth_m(path: Path, unit_m: float) -> torch.Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.asarray(image).astype(np.float32) * np.float32(unit_m))
