"""Renders the example photos that ship with the package, and writes down the truth about them.

    python scripts/render_examples.py [--seed SEED] [--path PATH] [--folder FOLDER] [--truth_only]

Four overlapping views of one synthetic room. Takes a few minutes on a CPU: the views are rendered at twice
their size with soft shadows and averaged. The truth (depth, cameras, questions with answers) takes seconds.
"""

import argparse
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from g2vlm.data.questions.making import make_questions
from g2vlm.data.questions.question import REASONING_REQUEST, Question
from g2vlm.data.samples import SceneSample
from g2vlm.data.synthetic import ViewShape, render_batch
from g2vlm.data.world.cameras import PathKind
from g2vlm.data.world.config import WorldConfig, full_world
from g2vlm.data.world.layout import make_room

WIDTH, HEIGHT, VIEWS, SUPERSAMPLING = 640, 480, 4, 2
SEED, PATH = 500_021, 0
DEPTH_UNIT_M = 0.001
NUM_QUESTIONS = 60
"""Questions that are made, of which those about all views without marks are kept."""


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


def true_sample(seed: int, path: int) -> SceneSample:
    """What the photos show, at their own size: nothing is averaged, since depth has no mean at an edge."""
    config = example_world(shadow_rays=0)
    shape = ViewShape(VIEWS, HEIGHT, WIDTH)
    return render_batch(config, [make_room(seed, config)], shape, path=path, kind=PathKind.ORBIT).sample(0)


def write_truth(sample: SceneSample, folder: Path) -> None:
    """Writes `frames.json` and a depth map for each view, in the layout of `g2vlm train --watch`."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = {}
    for k, depth_m in enumerate(sample.depth.double().numpy()):
        name = f"view_{k + 1}"
        counts = (depth_m / DEPTH_UNIT_M).round().astype(np.uint16)
        Image.fromarray(counts).save(folder / f"{name}_depth.png", optimize=True)
        frames[name] = {
            "image": f"../recon_images/{name}.jpg",
            "depth": f"{name}_depth.png",
            "depth_unit_m": DEPTH_UNIT_M,
            "K": sample.K[k].tolist(),
            "T_world_camera": [
                [round(value, 6) for value in row] for row in sample.T_world_camera[k].tolist()
            ],
        }
    asked = [described(question) for question in make_questions(sample, NUM_QUESTIONS) if is_plain(question)]
    listed = {"frames": frames, "groups": [list(frames)], "questions": asked}
    (folder / "frames.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


def is_plain(question: Question) -> bool:
    """Whether a question is about the photos as they are, all of them."""
    return question.views == tuple(range(VIEWS)) and not question.markers


def described(question: Question) -> dict[str, str]:
    """A question, the true answer with its reasons, and the answer alone."""
    return {
        "text": question.text + REASONING_REQUEST,
        "answer": question.answer,
        "reasoned": f"{question.reasoning} Answer: {question.answer}",
    }


def main() -> None:
    """Writes view_1.jpg .. view_4.jpg, and the truth beside their folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent.parent / "src" / "g2vlm" / "examples" / "recon_images"
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--path", type=int, default=PATH)
    parser.add_argument("--folder", type=Path, default=default)
    parser.add_argument("--truth_only", action="store_true")
    arguments = parser.parse_args()
    write_truth(true_sample(arguments.seed, arguments.path), arguments.folder.parent / "recon_truth")
    if arguments.truth_only:
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for k, view in enumerate(render_views(arguments.seed, arguments.path), start=1):
        view.save(arguments.folder / f"view_{k}.jpg", quality=90, optimize=True)


if __name__ == "__main__":
    main()
