"""A scene whose truth is known: rooms of the synthetic world, with original photos in files."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from g2vlm.data.synthetic import ViewShape, render_sample
from g2vlm.data.world.config import full_world
from g2vlm.geometry.cameras import resize_affine, unproject
from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View

WIDTH, HEIGHT, FACTOR = 84, 63, 3
"""Size of the network's image, and how many times the original is larger."""


def rendered_room(folder: Path, views: int = 3, seed: int = 500_000, factor: int = FACTOR) -> Scene:
    """Perfect geometry at the network's size beside photos of `factor` times the size, in `folder`."""
    small = render_sample(full_world(), seed, ViewShape(views, HEIGHT, WIDTH))
    large = render_sample(full_world(), seed, ViewShape(views, HEIGHT * factor, WIDTH * factor))
    size = (WIDTH * factor, HEIGHT * factor)
    affine = resize_affine(size, (WIDTH, HEIGHT)).numpy()
    points = unproject(small.depth, small.K)
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for i in range(views):
        path = folder / f"photo {i}.png"
        Image.fromarray(_bytes(large.images[i])).save(path)
        fields = {
            "name": path.name,
            "rgb": np.ascontiguousarray(_bytes(small.images[i])),
            "points_camera": points[i].numpy(),
            "T_world_camera": small.T_world_camera[i].numpy(),
            "K": small.K[i].numpy(),
            "confidence": np.linspace(0.2, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH),
            "valid": np.ones((HEIGHT, WIDTH), dtype=bool),
            "original_size": size,
            "T_model_original": affine,
            "source_path": str(path),
        }
        found.append(View(**fields))
    return Scene(tuple(found), Scale(ScaleKind.METRIC, "the renderer"))


def true_depth(views: int = 3, seed: int = 500_000) -> np.ndarray:
    """Depth at the size of the original photos."""
    return render_sample(full_world(), seed, ViewShape(views, HEIGHT * FACTOR, WIDTH * FACTOR)).depth.numpy()


def _bytes(image: torch.Tensor) -> np.ndarray:
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
