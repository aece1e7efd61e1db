"""Renders the example photos that ship with the package: four overlapping views of one synthetic room.

    python scripts/render_examples.py [--seed SEED] [--path PATH] [--folder FOLDER]

Takes a few minutes on a CPU: the views are rendered at twice their size with soft shadows and averaged.
"""

import argparse
import dataclasses
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from g2vlm.data.synthetic import ViewShape, render_batch
from g2vlm.data.world.cameras import PathKind
from g2vlm.data.world.config import WorldConfig, full_world
from g2vlm.data.world.layout import make_room

WIDTH, HEIGHT, VIEWS, SUPERSAMPLING = 640, 480, 4, 2
SEED, PATH = 500_021, 0


def example_world(shadow_rays: int) -> WorldConfig:
    """A level camera at eye height in a well filled room, with shadows and fine textures."""
    return dataclasses.replace(
        full_world(),
        room_width_m=(4.6, 5.6),
        room_length_m=(4.6, 5.6),
        num_furniture=(9, 12),
        num_decor=(7, 9),
        num_small=(10, 12),
        texture_contrast=(0.35, 0.7),
        fov_rad=(math.radians(72), math.radians(72)),
        camera_height_m=(1.45, 1.6),
        roll_rad=0.0,
        pitch_jitter_rad=0.02,
        yaw_jitter_rad=0.05,
        step_rad=(0.2, 0.3),
        exposure=(1.0, 1.0),
        shadow_rays=shadow_rays,
        fine_detail=True,
    )


def render_views(
    seed: int, path: int, supersampling: int = SUPERSAMPLING, shadow_rays: int = 4
) -> list[Image.Image]:
    """The example views of a seed."""
    config = example_world(shadow_rays)
    shape = ViewShape(VIEWS, HEIGHT * supersampling, WIDTH * supersampling)
    batch = render_batch(config, [make_room(seed, config)], shape, path=path, kind=PathKind.ORBIT)
    # Averaging light, not display values, keeps thin bright edges from darkening.
    light = torch.nn.functional.avg_pool2d(batch.images[0].square(), supersampling).sqrt()
    pixels = (light * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(np.ascontiguousarray(view)) for view in pixels]


def main() -> None:
    """Writes view_1.jpg .. view_4.jpg."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent.parent / "src" / "g2vlm" / "examples" / "recon_images"
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--path", type=int, default=PATH)
    parser.add_argument("--folder", type=Path, default=default)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for k, view in enumerate(render_views(arguments.seed, arguments.path), start=1):
        view.save(arguments.folder / f"view_{k}.jpg", quality=90, optimize=True)


if __name__ == "__main__":
    main()
