"""Recipes and checkpoints small enough for tests."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.data.world.config import World
from g2vlm.model.config import (
    EncoderWindows,
    G2VLMConfig,
    GeometricEncoderConfig,
    HeadsConfig,
    MixtureConfig,
    SemanticEncoderConfig,
)
from g2vlm.model.precision import Precision
from g2vlm.training.recipes.recipe import (
    Batching,
    FromCheckpoint,
    Optimisation,
    Phase,
    Recipe,
    Rhythm,
    SyntheticData,
)
from g2vlm.training.recipes.stages import Stage, from_scratch_groups
from g2vlm.training.run.setup import Start, prepare_start
from g2vlm.training.run.trainer import Runtime, Trainer


def small_config() -> G2VLMConfig:
    return G2VLMConfig(
        geometric_encoder=GeometricEncoderConfig(
            num_layers=1,
            width=16,
            num_heads=2,
            mlp_width=32,
            position_grid=4,
            windows=EncoderWindows.PER_VIEW,
        ),
        semantic_encoder=SemanticEncoderConfig(
            num_layers=1, width=16, num_heads=2, mlp_width=32, image_side=56
        ),
        mixture=MixtureConfig(
            vocab_size=320,
            width=32,
            mlp_width=48,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            head_dim=16,
            rope_theta=100.0,
            rope_sections=(2, 3, 3),
        ),
        heads=HeadsConfig(num_blocks=1, num_heads=2, mlp_width=48, point_width=16, camera_width=16),
        image_width=56,
    )


def small_checkpoint_folder(folder: Path) -> Path:
    return random_checkpoint(folder, small_config(), seed=1)


def small_recipe(checkpoint: Path, stage: Stage = Stage.GEOMETRY, **changes: object) -> Recipe:
    recipe = Recipe(
        name="small",
        stage=stage,
        start=FromCheckpoint(str(checkpoint)),
        data=SyntheticData(
            phases=(Phase(2, (World.EASY,), (2,), stride=2), Phase(1, (World.FULL,), (2, 3))),
            widths=(56,),
            questions_per_sample=2,
        ),
        trained=from_scratch_groups(stage),
        optimisation=Optimisation(steps=4, learning_rate=1e-3, warmup=2, ema_decay=0.9),
        batching=Batching(tokens=48),
        rhythm=Rhythm(log_every=1, validate_every=1000, validation_batches=1, save_every=2, keep=2),
        precision=Precision.FLOAT32,
    )
    return dataclasses.replace(recipe, **changes)


def small_start(checkpoint: Path, run: Path) -> Start:
    return prepare_start(small_recipe(checkpoint), run)


def small_trainer(recipe: Recipe, folder: Path, **runtime: object) -> Trainer:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return Trainer(recipe, Runtime(folder, workers=0, **runtime))  # type: ignore[arg-type]


def write_frames(folder: Path) -> None:
    """Two frames with depth and poses, as `--watch` reads them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    frames = {}
    for k in range(2):
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(folder / f"{k}.png")
        depth = np.full((30, 40), 2000, dtype=np.uint16)
        depth[0, 0] = 65535
        Image.fromarray(depth).save(folder / f"{k}_depth.png")
        pose = np.eye(4)
        pose[0, 3] = 0.5 * k
        frames[str(k)] = {
            "image": f"{k}.png",
            "depth": f"{k}_depth.png",
            "depth_unit_m": 0.001,
            "K": [[80.0, 0, 39.5], [0, 80.0, 29.5], [0, 0, 1]],
            "T_world_camera": pose.tolist(),
        }
    (folder / "frames.json").write_text(json.dumps({"frames": frames, "groups": [["0", "1"]]}))
