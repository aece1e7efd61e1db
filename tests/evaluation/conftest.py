"""A small random model, a rendered scene, and reconstructions made from the truth."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.data.samples import SceneSample
from g2vlm.data.synthetic import ViewShape, render_sample
from g2vlm.data.world.config import full_world
from g2vlm.geometry.cameras import unproject
from g2vlm.pipeline import Model
from g2vlm.scene.scene import Scale, ScaleKind, Scene
from g2vlm.scene.view import View


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("random") / "weights")


@pytest.fixture(scope="session")
def random_model(random_folder: Path) -> Model:
    return Model.from_pretrained(random_folder, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def sample() -> SceneSample:
    return render_sample(full_world(), 500_000, ViewShape(3, 42, 56))


@pytest.fixture(scope="session")
def as_scene() -> Callable[..., Scene]:
    """Turn a sample into the scene that a perfect model would reconstruct, in another unit."""

    def build(sample: SceneSample, scale: float = 1.0) -> Scene:
        points = unproject(sample.depth, sample.K) * scale
        poses = sample.T_world_camera.clone()
        poses[:, :3, 3] *= scale
        height, width = sample.depth.shape[1:]
        views = [
            View(
                name=str(i),
                rgb=(image * 255).to(torch.uint8).permute(1, 2, 0).numpy(),
                points_camera=points[i].numpy(),
                T_world_camera=poses[i].numpy(),
                K=sample.K[i].numpy(),
                confidence=np.ones((height, width), np.float32),
                valid=np.ones((height, width), bool),
                original_size=(width, height),
                T_model_original=np.eye(3),
            )
            for i, image in enumerate(sample.images)
        ]
        return Scene(tuple(views), Scale(ScaleKind.RELATIVE, "a test"))

    return build
