"""Camera poses from whatever file holds them."""

from pathlib import Path

import numpy as np

from g2vlm.errors import InputError
from g2vlm.geometry.known import KnownPose, PoseTrack
from g2vlm.inputs.decode import printable
from g2vlm.inputs.known.colmap import find_model, read_model
from g2vlm.inputs.known.files import numbers_of, text_of, written_by_g2vlm
from g2vlm.inputs.known.transforms import read_transforms

_EXPECTED = "a TUM or KITTI trajectory, a COLMAP model folder, or transforms.json"


def read_poses(path: str | Path, *, is_metric: bool | None = None) -> PoseTrack:
    """Read camera poses.

    Args:
        path: a TUM trajectory (`time x y z qx qy qz qw`, or a file name in place of the time), a KITTI one
            (twelve numbers a line), a COLMAP model folder (binary or text), or a `transforms.json`.
        is_metric: whether its unit is the metre. None: for trajectories yes; for COLMAP and nerfstudio, whose
            unit is arbitrary, only where `g2vlm.json` beside them says so.

    Raises:
        InputError: nothing readable there.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _of_folder(path, is_metric)
    if path.suffix.lower() == ".json":
        return PoseTrack(read_transforms(path), printable(path.name), _is_metric(path, is_metric, False))
    if path.name in ("images.txt", "images.bin", "cameras.txt", "cameras.bin"):
        return _of_folder(path.parent, is_metric)
    poses = _of_lines(path)
    return PoseTrack(poses, printable(path.name), _is_metric(path, is_metric, True))


def _of_folder(folder: Path, is_metric: bool | None) -> PoseTrack:
    name = printable(f"{folder.name or folder}/")
    if find_model(folder) is None and (folder / "transforms.json").is_file():
        poses = read_transforms(folder / "transforms.json")
    else:
        poses = read_model(folder).poses
    return PoseTrack(poses, name, _is_metric(folder, is_metric, False))


def _is_metric(path: Path, asked: bool | None, usual: bool) -> bool:
    if asked is not None:
        return asked
    about = written_by_g2vlm(path) if path.is_dir() or path.suffix.lower() == ".json" else None
    if about is not None:
        return about.get("scale") == "metric"
    # Trajectories that g2vlm wrote say their unit in a comment.
    if usual and path.is_file() and "unit: units" in text_of(path, _EXPECTED)[:400]:
        return False
    return usual


def _of_lines(path: Path) -> tuple[KnownPose, ...]:
    poses = []
    for number, line in enumerate(text_of(path, _EXPECTED).splitlines(), start=1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        pose = _of_line(line)
        if pose is None:
            raise InputError(
                f"Expected {_EXPECTED} at {printable(str(path))}, but line {number} has neither 8 numbers "
                f"(time x y z qx qy qz qw) nor 12: {printable(line[:60])!r}."
            )
        poses.append(pose)
    if not poses:
        raise InputError(f"Expected {_EXPECTED} at {printable(str(path))}, got no pose.")
    return tuple(poses)


def _of_line(line: str) -> KnownPose | None:
    from scipy.spatial.transform import Rotation

    first, *rest = line.replace(",", " ").split()
    numbers, time = numbers_of(" ".join(rest)), numbers_of(first)
    if numbers is None or not np.isfinite(numbers).all():
        return None
    T = np.eye(4)
    if len(numbers) == 11 and time is not None:
        T[:3] = np.reshape([*time, *numbers], (3, 4))
        return KnownPose(T)
    if len(numbers) != 7 or not any(numbers[3:]):
        return None
    T[:3, :3] = Rotation.from_quat(numbers[3:]).as_matrix()
    T[:3, 3] = numbers[:3]
    return KnownPose(T, None, time[0]) if time is not None else KnownPose(T, first)
