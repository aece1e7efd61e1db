"""Figures on real frames with measured depth and poses while training runs; nothing is learned from them."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from g2vlm.errors import InputError
from g2vlm.evaluation.metrics.depth import depth_errors
from g2vlm.evaluation.metrics.poses import Direction, auc_at, pair_errors
from g2vlm.geometry.cameras import recover_intrinsics
from g2vlm.inputs.decode import Photo
from g2vlm.inputs.geometric import prepare_geometric
from g2vlm.model.config import ViewAttention
from g2vlm.model.network import G2VLM, ModelInputs, Wants
from g2vlm.training.run.setup import Start
from g2vlm.training.sources.sequences import Opening, SequenceBuilder, ViewSet

_NEAREST_M, _FARTHEST_M = 0.1, 20.0
_LEAST_BASELINE_M = 0.02


@dataclass(frozen=True)
class _Group:
    inputs: ModelInputs
    depth_m: Tensor
    """(views, height, width); 0 where it is not known."""
    T_world_camera: Tensor
    focal_px: Tensor
    """Of each view at the size of the inputs."""


class WatchedFrames:
    """Groups of overlapping frames, by the set they belong to.

    Args:
        folder: holds sets, or is one: a folder with `frames.json`, whose `frames` name an image, a depth file
            (counts of `depth_unit_m` metres in PNG or NPY), K and T_world_camera (OpenCV axes), and whose
            `groups` list names of frames that overlap.
        start: size of the pictures, and the text in front of them.

    Raises:
        InputError: there are no sets, or one cannot be read.
    """

    def __init__(self, folder: Path, start: Start) -> None:
        names = [folder, *sorted(path for path in folder.glob("*") if path.is_dir())]
        self.sets: dict[str, list[_Group]] = {}
        for path in names:
            if (path / "frames.json").is_file():
                self.sets[path.name] = _groups(path, start)
        if not self.sets:
            raise InputError(f"Expected folders with frames.json in {folder} to watch, found none.")

    @torch.no_grad()
    def figures(self, network: G2VLM, autocast: torch.autocast) -> dict[str, float]:
        """For each set: `abs_rel` (one scale for each group), `auc30` (pairs apart) and `focal_error`."""
        result: dict[str, float] = {}
        for name, groups in self.sets.items():
            depths, angles, focals = [], [], []
            for group in groups:
                with autocast:
                    geometry = network(_moved(group.inputs, network), Wants(geometry=True)).geometry
                assert geometry is not None
                points = geometry.points_camera[0].float().cpu()
                known = (group.depth_m > _NEAREST_M) & (group.depth_m < _FARTHEST_M)
                depths.append(depth_errors(points[..., 2], group.depth_m, known).abs_rel)
                poses = geometry.T_world_camera[0].float().cpu()
                errors = pair_errors(poses, group.T_world_camera, Direction.SIGNED)
                angles.append(errors.largest_deg[_apart(group.T_world_camera)])
                focal = recover_intrinsics(points)[:, 0, 0]
                focals += (focal / group.focal_px - 1).abs().tolist()
            result[f"{name}_abs_rel"] = fmean(depths)
            result[f"{name}_auc30"] = auc_at(torch.cat(angles))
            result[f"{name}_focal_error"] = median(focals)
        return result


def _apart(T_world_camera: Tensor) -> Tensor:
    """Which pairs of views are far enough apart for a direction to mean something."""
    position = T_world_camera[:, :3, 3]
    first, second = torch.triu_indices(len(position), len(position), offset=1)
    return (position[first] - position[second]).norm(dim=-1) >= _LEAST_BASELINE_M


def _moved(inputs: ModelInputs, network: G2VLM) -> ModelInputs:
    from g2vlm.training.sources.batches import TrainingBatch

    device = next(network.parameters()).device
    return TrainingBatch(inputs, None, None).to(device).inputs


def _groups(path: Path, start: Start) -> list[_Group]:
    try:
        listed = json.loads((path / "frames.json").read_text(encoding="utf-8"))
        frames = listed["frames"]
        return [_group(path, [frames[name] for name in group], start) for group in listed["groups"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"Expected frames, depth and groups in {path / 'frames.json'}: {error!r}."
        ) from error


def _group(path: Path, frames: list[dict], start: Start) -> _Group:
    config = start.config
    photos = [_photo(path / frame["image"]) for frame in frames]
    patch = config.geometric_encoder.patch_size
    prepared = prepare_geometric(photos, width=config.image_width, patch=patch)
    height, width = prepared.pixels.shape[-2:]
    builder = SequenceBuilder(start.tokenizer, config)
    built = builder.build(ViewSet(prepared.pixels[None]), Opening.RECONSTRUCTION, ViewAttention.GLOBAL)
    focal = [f["K"][0][0] * width / photo.image.width for f, photo in zip(frames, photos, strict=True)]
    poses = torch.tensor([frame["T_world_camera"] for frame in frames], dtype=torch.float32)
    depths = [_depth(path, frame, height, width) for frame in frames]
    return _Group(built.inputs, torch.stack(depths), poses, torch.tensor(focal))


def _photo(path: Path) -> Photo:
    with Image.open(path) as image:
        return Photo(image.convert("RGB"), path.name)


def _depth(path: Path, frame: dict, height: int, width: int) -> Tensor:
    """Depth at the middles of the pixels of the network's pictures, the nearest measured one."""
    file = path / frame["depth"]
    if file.suffix == ".npy":
        values = np.load(file).astype(np.float64)
    else:
        with Image.open(file) as image:
            values = np.asarray(image).astype(np.float64)
        values[values >= np.iinfo(np.uint16).max] = 0.0
    rows = ((np.arange(height) + 0.5) * values.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * values.shape[1] / width).astype(int)
    return torch.from_numpy(values[np.ix_(rows, columns)] * frame["depth_unit_m"]).float()
