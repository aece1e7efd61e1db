"""frames.json: the plainest description of posed pictures that this package reads and people can write.

    {"scale": "metric", "frames": {"a.png": {"image": "images/a.png", "K": [[...]], "T_world_camera": [[...]],
     "depth": "depth/a.png", "depth_unit_m": 0.001}}, "groups": [["a.png", "b.png"]]}

`frames` maps names to frames, or is a list of them with a `name` each. Poses are camera-to-world in OpenCV
axes; K belongs to the picture's own size, integer pixel centres. `depth`, z-depth, may be left out: a 16-bit
PNG in counts of `depth_unit_m`, or a .npy. `scale` is metric where there is depth and relative elsewhere,
unless it is said. `groups` are only for evaluation.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from g2vlm.data.prepare.files import array_depth, png_depth
from g2vlm.data.prepare.layout import Drops, Layout, ListedFrame, deep_folders_with
from g2vlm.errors import InputError
from g2vlm.scene.scale import ScaleKind

NAME = "frames.json"


class FramesJson(Layout):
    """Folders with a frames.json."""

    name, title = "frames", "frames.json"
    licence = "the user's own"
    source = "docs/data.md"
    expects = "frames.json, or folders that hold one"
    scenes_per_shard = 4

    def scenes(self, root: Path) -> Iterator[str]:
        """Folders with the file, at any depth."""
        yield from deep_folders_with(root, NAME)

    def scale_of(self, root: Path, scene: str) -> ScaleKind:
        """What the file says, or whether it has depth."""
        content = _content(root / scene / NAME)
        if "scale" in content:
            known = [kind.value for kind in ScaleKind]
            if content["scale"] not in known:
                raise InputError(f"Expected scale {' or '.join(known)} in {root / scene / NAME}.")
            return ScaleKind(content["scale"])
        has_depth = any("depth" in about for _, about in _named(content))
        return ScaleKind.METRIC if has_depth else ScaleKind.RELATIVE

    def frames(self, root: Path, scene: str, drop: Drops) -> Iterator[ListedFrame]:
        """In the order of the file."""
        folder = root / scene
        for name, about in _named(_content(folder / NAME)):
            try:
                depth = None
                if about.get("depth"):
                    path = folder / about["depth"]
                    unit = float(about.get("depth_unit_m", 1.0 if path.suffix == ".npy" else 0.001))
                    depth = array_depth(path, unit) if path.suffix == ".npy" else png_depth(path, unit)
                K = np.array(about["K"], dtype=np.float64).reshape(3, 3)
                pose = np.array(about["T_world_camera"], dtype=np.float64).reshape(4, 4)
                yield ListedFrame(name, folder / about["image"], K, pose, depth=depth)
            except (KeyError, TypeError, ValueError) as error:
                drop("its entry cannot be read", f"{scene}/{name}: {error!r}")


def groups_of(folder: Path) -> list[list[str]]:
    """Names of frames that are meant to be reconstructed together; none where the file lists no groups."""
    return [list(map(str, group)) for group in _content(folder / NAME).get("groups", [])]


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"Expected a JSON object with frames in {path}: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("frames"), dict | list):
        raise InputError(f"Expected a JSON object with frames in {path}.")
    return content


def _named(content: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    frames = content["frames"]
    if isinstance(frames, dict):
        return [(str(name), about) for name, about in frames.items() if isinstance(about, dict)]
    return [(str(about.get("name", k)), about) for k, about in enumerate(frames) if isinstance(about, dict)]
