"""A small checkpoint that sees one flat wall everywhere: random weights whose geometry survives filters."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from g2vlm.checkpoints.random import random_checkpoint

PATCH = 14


def plane_checkpoint(folder: Path) -> Path:
    """Write a checkpoint whose every view is a wall at depth 1, seen from one and the same place."""
    random_checkpoint(folder)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    for key in ("point_head.proj.weight", "camera_head.fc_t.weight", "camera_head.fc_rot.weight"):
        tensors[key] = np.zeros_like(tensors[key])
    offset = (np.arange(PATCH, dtype=np.float32) - (PATCH - 1) / 2) / 100
    x, y = np.meshgrid(offset, offset)
    tensors["point_head.proj.bias"] = np.stack([x, y, np.zeros_like(x)]).reshape(-1)
    tensors["camera_head.fc_t.bias"] = np.zeros(3, dtype=np.float32)
    tensors["camera_head.fc_rot.bias"] = np.eye(3, dtype=np.float32).reshape(-1)
    save_file(tensors, weights)
    return folder
