"""One writer per file format. Importing this room registers all of them with `Scene.save`."""

import os
from pathlib import Path

from g2vlm.export.ply import write_ply, write_scene_ply
from g2vlm.scene.scene import Scene
from g2vlm.scene.storage import WRITERS

__all__ = ["save_scene", "write_ply", "write_scene_ply"]

WRITERS[".ply"] = write_scene_ply


def save_scene(scene: Scene, path: str | os.PathLike[str]) -> Path:
    """Write a scene in the format of the file's ending, with every format of this package at hand.

    Raises:
        OutputError: an unknown ending, or a place that cannot be written.
    """
    return scene.save(path)
