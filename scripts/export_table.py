"""Writes a rendered room in every format, reads it back with other software, and prints what came back.

    python scripts/export_table.py [--folder FOLDER]

The error is the largest distance, in pixels of the original photos, between where the scene and where the
file sees a point, over all points and cameras of a file (points or cameras alone are completed by the
scene's).
Needs the packages of `pip install 'g2vlm[dev,usd]'`.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image

from g2vlm.scene.save_options import ImageFiles, MapFiles, SaveOptions, Upsampling
from g2vlm.scene.scene import Scene

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

FLIP = np.diag([1.0, -1, -1, 1])
Camera = tuple[np.ndarray, np.ndarray]
"""T_camera_world, and K of the original photo with pixel centres at integers."""
Read = tuple[np.ndarray | None, Sequence[Camera] | None]
"""Points of the scene's cloud in its order, and cameras; None where a file has none."""


def scene_cameras(scene: Scene) -> list[Camera]:
    """Cameras as the scene has them, by numpy alone."""
    return [
        (np.linalg.inv(v.T_world_camera.astype(np.float64)), np.linalg.inv(v.T_model_original) @ v.K)
        for v in scene.views
    ]


def worst_px(scene: Scene, read: Read) -> float:
    """Largest distance between projections by the scene and by what was read."""
    own = scene.point_cloud().points.astype(np.float64)
    points = own if read[0] is None else read[0]
    worst = 0.0
    for view, mine, theirs in zip(
        scene.views, scene_cameras(scene), read[1] or scene_cameras(scene), strict=True
    ):
        a, depth = project(own, mine)
        b, _ = project(points, theirs)
        inside = (depth > 0) & (a > -0.5).all(axis=1) & (a < np.array(view.original_size) - 0.5).all(axis=1)
        worst = max(worst, float(np.linalg.norm(a - b, axis=1)[inside].max()))
    return worst


def project(points: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and depths."""
    T, K = camera
    moved = points @ T[:3, :3].T + T[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        return moved[:, :2] / moved[:, 2:] * [K[0, 0], K[1, 1]] + K[:2, 2], moved[:, 2]


def read_npz(path: Path, scene: Scene) -> Read:
    """By numpy."""
    with np.load(path) as file:
        poses = file["T_world_camera"].astype(np.float64)
        cameras = [(np.linalg.inv(T), K) for T, K in zip(poses, file["K_original"], strict=True)]
        return file["points_world"][file["valid"]], cameras


def read_points(path: Path, scene: Scene) -> Read:
    """By trimesh."""
    return np.asarray(trimesh.load(path).vertices), None


def read_glb(path: Path, scene: Scene) -> Read:
    """By trimesh, and cameras from the nodes of the document."""
    (cloud,) = (g for g in trimesh.load(path).geometry.values() if isinstance(g, trimesh.PointCloud))
    data = path.read_bytes()
    nodes = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])["nodes"]
    extras = [node["extras"] for node in nodes if "camera" in node]
    poses = [FLIP @ np.reshape(node["matrix"], (4, 4)).T @ FLIP for node in nodes if "camera" in node]
    K = [np.array(each["K_original"]) for each in extras]
    cameras = [(np.linalg.inv(T), k) for T, k in zip(poses, K, strict=True)]
    return np.asarray(cloud.vertices) @ FLIP[:3, :3], cameras


def read_colmap(path: Path, scene: Scene) -> Read:
    """By pycolmap."""
    import pycolmap

    model = pycolmap.Reconstruction(path / "sparse" / "0")
    cameras = []
    for number in sorted(model.images):
        fx, fy, cx, cy = model.cameras[model.images[number].camera_id].params
        T = np.vstack([model.images[number].cam_from_world().matrix(), [0, 0, 0, 1]])
        cameras.append((T, np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])))
    return np.array([model.points3D[n].xyz for n in sorted(model.points3D)]), cameras


def read_nerfstudio(path: Path, scene: Scene) -> Read:
    """By json and trimesh."""
    told = json.loads((path / "transforms.json").read_text())
    turn = np.vstack([told["applied_transform"], [0, 0, 0, 1]])
    cameras = []
    for frame in told["frames"]:
        K = np.array(
            [[frame["fl_x"], 0, frame["cx"] - 0.5], [0, frame["fl_y"], frame["cy"] - 0.5], [0, 0, 1]]
        )
        cameras.append((FLIP @ np.linalg.inv(frame["transform_matrix"]) @ turn, K))
    return np.asarray(trimesh.load(path / told["ply_file_path"]).vertices) @ turn[:3, :3], cameras


def read_depth(path: Path, scene: Scene) -> Read:
    """By Pillow, OpenEXR or numpy: depth at the centres of the network's pixels, unprojected."""
    told, points, cameras = json.loads((path / "g2vlm.json").read_text()), [], []
    for view, entry in zip(scene.views, told["views"], strict=True):
        depth = read_map(path / entry["file"]) * told.get("unit_per_count", 1.0)
        K, T = np.array(entry["K"]), np.array(entry["T_world_camera"])
        v, u = np.mgrid[: view.height, : view.width]
        u, v = (np.linalg.inv(view.T_model_original) @ np.stack([u, v, np.ones_like(u)]).reshape(3, -1))[:2]
        z = depth[np.rint(v).astype(int), np.rint(u).astype(int)]
        rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], axis=1)
        points.append((rays * z[:, None]) @ T[:3, :3].T + T[:3, 3])
        cameras.append((np.linalg.inv(T), K))
    return np.concatenate(points), cameras


def read_map(path: Path) -> np.ndarray:
    """One channel of numbers."""
    if path.suffix == ".exr":
        import OpenEXR

        return OpenEXR.File(str(path)).channels()["Y"].pixels
    return np.load(path) if path.suffix == ".npy" else np.asarray(Image.open(path)).astype(np.float64)


def read_tum(path: Path, scene: Scene) -> Read:
    """By numpy and scipy."""
    from scipy.spatial.transform import Rotation

    cameras = []
    for row, (_, K) in zip(np.loadtxt(path), scene_cameras(scene), strict=True):
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = Rotation.from_quat(row[4:]).as_matrix(), row[1:4]
        cameras.append((np.linalg.inv(T), K))
    return None, cameras


def read_kitti(path: Path, scene: Scene) -> Read:
    """By numpy."""
    rows = np.loadtxt(path).reshape(-1, 3, 4)
    poses = [np.vstack([row, [0, 0, 0, 1]]) for row in rows]
    return None, [(np.linalg.inv(T), K) for T, (_, K) in zip(poses, scene_cameras(scene), strict=True)]


def read_usd(path: Path, scene: Scene) -> Read:
    """By usd-core."""
    from pxr import Usd, UsdGeom

    stage = Usd.Stage.Open(str(path))
    points = np.array(UsdGeom.Points(stage.GetPrimAtPath("/scene/points")).GetPointsAttr().Get())
    return points @ FLIP[:3, :3], None


Format = tuple[str, str, str, SaveOptions, Callable[[Path, Scene], Read]]
NEAREST = Upsampling.NEAREST
FORMATS: list[Format] = [
    ("npz", "numpy", "npz:a.npz", SaveOptions(), read_npz),
    ("ply", "trimesh", "ply:a.ply", SaveOptions(), read_points),
    ("glb", "trimesh", "glb:a.glb", SaveOptions(), read_glb),
    ("gaussians", "trimesh", "gaussians:g.ply", SaveOptions(), read_points),
    ("colmap, binary", "pycolmap", "colmap:c", SaveOptions(), read_colmap),
    ("colmap, text", "pycolmap", "colmap:t", SaveOptions(text=True, images=ImageFiles.NONE), read_colmap),
    ("nerfstudio", "json, trimesh", "nerfstudio:n", SaveOptions(), read_nerfstudio),
    ("depth, png", "Pillow", "depth:d", SaveOptions(upsampling=NEAREST), read_depth),
    ("depth, exr", "OpenEXR", "depth:e", SaveOptions(upsampling=NEAREST, maps=MapFiles.EXR), read_depth),
    ("depth, npy", "numpy", "depth:f", SaveOptions(upsampling=NEAREST, maps=MapFiles.NPY), read_depth),
    ("tum", "numpy", "tum:p.tum", SaveOptions(), read_tum),
    ("kitti", "numpy", "kitti:p.kitti", SaveOptions(), read_kitti),
    ("usd", "usd-core", "usd:a.usdc", SaveOptions(), read_usd),
]


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the files here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        import rendered_room

        import g2vlm.export
        from g2vlm.cli.shared.terminal import bytes_of

        rendered_room.WIDTH, rendered_room.HEIGHT = 252, 189
        scene = rendered_room.rendered_room(folder / "photos", views=3)
        print("| format | reader | worst error, px | bytes | seconds |\n|---|---|---|---|---|")
        for name, reader, target, options, read in FORMATS:
            kind, _, place = target.partition(":")
            start = time.perf_counter()
            path = g2vlm.export.save_scene(scene, f"{kind}:{folder / place}", options)
            seconds = time.perf_counter() - start
            error = worst_px(scene, read(path, scene))
            print(f"| {name} | {reader} | {error:.1e} | {bytes_of(path):,} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
