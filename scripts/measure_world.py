"""Measures how fast the photographic world is drawn on one core, and what its pictures are like.

    python scripts/measure_world.py [--rooms N] [--sheet FILE.png]

Prints processor seconds (so that other work on the machine counts little) and rooms a minute on one core, for
small and for full pictures, and statistics of depth, field of view, baselines and brightness.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from g2vlm.data.samples import SceneBatch
from g2vlm.data.synthetic import ViewShape, render_batch
from g2vlm.data.world.config import World
from g2vlm.data.world.photo.library import the_library
from g2vlm.data.world.places import make_place

SIZES = (ViewShape(2, 84, 112), ViewShape(4, 84, 112), ViewShape(4, 168, 224))


def measure(num_rooms: int) -> SceneBatch:
    """Time all sizes, and return the pictures of the last one."""
    config = World.PHOTO.config
    render_batch(config, [make_place(0, config)], SIZES[0])
    for shape in SIZES:
        began = time.process_time()
        rooms = [make_place(seed, config) for seed in range(num_rooms)]
        made = time.process_time()
        batch = render_batch(config, rooms, shape)
        ended = time.process_time()
        furnish, draw = (made - began) / num_rooms, (ended - made) / num_rooms
        print(
            f"{shape.views} views of {shape.width}x{shape.height}: {furnish:.3f} s to furnish a room, "
            f"{draw:.3f} s to draw it, {60 / (furnish + draw):.0f} rooms a minute"
        )
    return batch


def statistics(batch: SceneBatch) -> None:
    """Print what the pictures are like."""
    depth, fov, baseline, turn = [], [], [], []
    for i in range(len(batch)):
        sample = batch.sample(i)
        known = sample.depth[sample.valid]
        depth.append(np.percentile(known.numpy(), [5, 50, 95]))
        longer = max(batch.images.shape[-2:])
        fov.append(np.degrees(2 * np.arctan(longer / 2 / float(sample.K[0, 0, 0]))))
        relative = torch.linalg.inv(sample.T_world_camera[0]) @ sample.T_world_camera[1]
        baseline.append(float(relative[:3, 3].norm() / known.median()))
        turn.append(np.degrees(np.arccos(np.clip((float(relative[:3, :3].trace()) - 1) / 2, -1, 1))))
    rows = {
        "depth m, median of 5/50/95 %": np.median(depth, axis=0),
        "field of view deg, 5/50/95 %": np.percentile(fov, [5, 50, 95]),
        "baseline / depth, 5/50/95 %": np.percentile(baseline, [5, 50, 95]),
        "rotation deg, 5/50/95 %": np.percentile(turn, [5, 50, 95]),
        "brightness, mean and deviation": [255 * batch.images.mean(), 255 * batch.images.std()],
        "share with depth": [batch.valid.float().mean()],
    }
    for name, values in rows.items():
        print(f"{name}: " + " ".join(f"{float(value):.2f}" for value in values))


def sheet(batch: SceneBatch, path: Path) -> None:
    """Write all pictures side by side, a room in each row."""
    pixels = (batch.images * 255).round().byte().permute(0, 3, 1, 4, 2)
    rows, height, views, width, _ = pixels.shape
    Image.fromarray(pixels.reshape(rows * height, views * width, 3).numpy()).save(path)


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rooms", type=int, default=24)
    parser.add_argument("--sheet", type=Path, default=None, help="write the pictures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{len(the_library().meshes)} meshes, {len(the_library().textures)} textures")
    batch = measure(options.rooms)
    statistics(batch)
    if options.sheet is not None:
        sheet(batch, options.sheet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
