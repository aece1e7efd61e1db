"""Miniatures of data sets of rooms."""

import csv
import json
import math
from pathlib import Path

import numpy as np
from exact_room import exact_views, render, trace
from miniatures import (
    Expected,
    miniature,
    quaternion,
    save_depth,
    save_jpg,
    save_png,
    save_text,
)
from PIL import Image
from scipy.spatial.transform import Rotation

GL = np.diag([1.0, -1.0, -1.0, 1.0])


@miniature("scannetpp")
def scannetpp(root: Path) -> Expected:
    views, folder = exact_views(3, 192, 144), root / "data" / "036bce3393" / "iphone"
    poses = {}
    for k, view in enumerate([*views, views[0]]):
        name = f"frame_{10 * k:06d}"
        save_jpg(view, folder / "rgb" / f"{name}.jpg")
        # The sensor is coarser than the picture.
        save_depth(view.depth[1::3, 1::3], folder / "depth" / f"{name}.png", 1000)
        poses[name] = {"aligned_pose": view.T_world_camera.tolist(), "intrinsic": view.K.tolist()}
    del poses["frame_000030"]
    (folder / "pose_intrinsic_imu.json").write_text(json.dumps(poses))
    names = ("frame_000000", "frame_000010", "frame_000020")
    return Expected(views, names, "data/036bce3393", dropped={"its pose is missing": 1})


@miniature("arkitscenes")
def arkitscenes(root: Path) -> Expected:
    views, folder = exact_views(3, 256, 192), root / "Training" / "40753679"
    rows, names = [], []
    for k, view in enumerate([*views, views[0]]):
        stamp = 6790.25 + 0.1 * k + (0.05 if k == 3 else 0.0)
        name = f"40753679_{stamp:.3f}"
        save_png(view, folder / "lowres_wide" / f"{name}.png")
        save_depth(view.depth, folder / "lowres_depth" / f"{name}.png", 1000)
        confidence = np.full(view.depth.shape, 2, dtype=np.uint8)
        confidence[:10] = 0
        (folder / "confidence").mkdir(exist_ok=True)
        Image.fromarray(confidence).save(folder / "confidence" / f"{name}.png")
        K = view.K
        save_text(
            np.array([256, 192, K[0, 0], K[1, 1], K[0, 2], K[1, 2]]),
            folder / "lowres_wide_intrinsics" / f"{name}.pincam",
        )
        T = np.linalg.inv(view.T_world_camera)
        if k < 3:
            turn = Rotation.from_matrix(T[:3, :3]).as_rotvec()
            rows.append([stamp + 0.004, *turn, *T[:3, 3]])
            names.append(name)
    save_text(np.array(rows), folder / "lowres_wide.traj")
    return Expected(
        views, tuple(names), "Training/40753679", dropped={"no pose was measured within 20 ms": 1}
    )


@miniature("nrgbd")
def nrgbd(root: Path) -> Expected:
    K = np.array([[130.0, 0, 80], [0, 130, 60], [0, 0, 1]])
    views = tuple(render(view.T_world_camera, K, (160, 120)) for view in exact_views(3))
    folder = root / "whiteroom"
    rows = []
    for k, view in enumerate(views):
        save_png(view, folder / "images" / f"img{k}.png")
        save_depth(view.depth, folder / "depth" / f"depth{k}.png", 1000)
        rows += (view.T_world_camera @ GL).tolist()
    save_png(views[0], folder / "images" / "img3.png")
    save_depth(views[0].depth, folder / "depth" / "depth3.png", 1000)
    rows += np.full((4, 4), np.nan).tolist()
    np.savetxt(folder / "poses.txt", np.array(rows))
    (folder / "focal.txt").write_text("130.0\n")
    return Expected(views, ("0", "1", "2"), "whiteroom", dropped={"its pose is not finite": 1})


@miniature("hypersim")
def hypersim(root: Path) -> Expected:
    """A lens that is shifted and tilted: pixels see along M (u, v, 1)."""
    import h5py

    width, height, metres = 160, 120, 0.02
    M = np.array([[0.58, 0.0, -0.07], [0.0, 0.435, 0.09], [0.0, 0.004, -1.004]])
    u = 2 * (np.arange(width) + 0.5) / width - 1
    v = 1 - 2 * (np.arange(height) + 0.5) / height
    uv = np.stack([*np.meshgrid(u, v), np.ones((height, width))], axis=-1)
    rays = uv @ M.T @ GL[:3, :3].T
    length = np.linalg.norm(rays, axis=-1)
    # The pinhole that sees the same is turned about x, so that the tilt vanishes.
    tilt = math.atan2(0.004, -(GL[:3, :3] @ M)[1, 1])
    turn = Rotation.from_rotvec([tilt, 0, 0]).as_matrix()
    views, positions, turns = [], [], []
    place = root / "ai_001_001"
    preview = place / "images" / "scene_cam_00_final_preview"
    geometry = place / "images" / "scene_cam_00_geometry_hdf5"
    detail = place / "_detail" / "cam_00"
    for folder in (preview, geometry, detail):
        folder.mkdir(parents=True)
    for k, exact in enumerate(exact_views(3)):
        T = exact.T_world_camera
        depth, colours = trace(T, rays / rays[..., 2:])
        distance = depth * length / rays[..., 2]
        Image.fromarray(colours).save(preview / f"frame.{k:04d}.tonemap.jpg", quality=95)
        with h5py.File(geometry / f"frame.{k:04d}.depth_meters.hdf5", "w") as file:
            file["dataset"] = distance.astype(np.float16)
        positions.append(T[:3, 3] / metres)
        turns.append(T[:3, :3] @ GL[:3, :3])
        pose = T.copy()
        pose[:3, :3] = T[:3, :3] @ turn
        # In the turned camera, z is the same point's distance along its axis.
        z = ((rays / length[..., None]) @ turn)[..., 2] * distance
        flat = (rays / rays[..., 2:]) @ turn
        K = pinhole(flat / flat[..., 2:])
        views.append(type(exact)(colours, z, K, pose))
    for name, values in (("positions", positions), ("orientations", turns)):
        with h5py.File(detail / f"camera_keyframe_{name}.hdf5", "w") as file:
            file["dataset"] = np.array(values)
    row: dict[str, object] = {"scene_name": "ai_001_001", "settings_units_info_meters_scale": metres}
    row |= {"settings_output_img_width": 160.0, "settings_output_img_height": 120.0}
    row |= {f"M_cam_from_uv_{i}{j}": M[i, j] for i in range(3) for j in range(3)}
    with (root / "metadata_camera_parameters.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(row))
        table.writeheader()
        table.writerow(row)
    # Half floats round at a few metres to 2 mm.
    return Expected(tuple(views), ("0000", "0001", "0002"), "ai_001_001/cam_00", depth_error=0.003)


def pinhole(rays: np.ndarray) -> np.ndarray:
    """K whose pixels see along rays with z = 1, fitted to all of them."""
    height, width = rays.shape[:2]
    K = np.eye(3)
    for axis in (0, 1):
        pixels = np.indices((height, width))[1 - axis]
        K[axis, axis], K[axis, 2] = np.polyfit(rays[..., axis].ravel(), pixels.ravel(), 1)
    return K


@miniature("taskonomy")
def taskonomy(root: Path) -> Expected:
    angle = 1.1
    focal = 0.5 * 128 / math.tan(angle / 2)
    K = np.array([[focal, 0, 63.5], [0, focal, 63.5], [0, 0, 1]])
    views = tuple(render(view.T_world_camera, K, (128, 128)) for view in exact_views(3))
    for k, view in enumerate([*views, views[0]]):
        stem = f"point_{k // 2}_view_{k % 2}_domain"
        save_png(view, root / "rgb" / "almena" / f"{stem}_rgb.png")
        save_depth(view.depth, root / "depth_zbuffer" / "almena" / f"{stem}_depth_zbuffer.png", 512)
        # Fixed axes: first about x, then y, then z.
        turn = (view.T_world_camera @ GL)[:3, :3]
        y = -math.asin(turn[2, 0])
        x = math.atan2(turn[2, 1], turn[2, 2])
        z = math.atan2(turn[1, 0], turn[0, 0])
        about = {
            "camera_location": view.T_world_camera[:3, 3].tolist(),
            "camera_rotation_final": [x, y if k < 3 else 2.0, z],
            "field_of_view_rads": angle,
        }
        path = root / "point_info" / "almena" / f"{stem}_point_info.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(about))
    names = ("point_0_view_0", "point_0_view_1", "point_1_view_0")
    return Expected(views, names, "almena", depth_error=0.0016, dropped={"its pitch is estimated wrongly": 1})


@miniature("ase")
def aria_synthetic(root: Path) -> Expected:
    """Fisheye pictures by inverting the lens step by step."""
    from g2vlm.data.prepare.indoor.aria_synthetic import PROJECTION, T_DEVICE_CAMERA

    focal, cx, cy, *k = PROJECTION
    u, v = np.meshgrid(np.arange(704.0), np.arange(704.0))
    a, b = (u - cx) / focal, (v - cy) / focal
    p0, p1 = k[6:8]
    # First the tangential part, by repetition, then the radial one, by a table.
    x, y = a.copy(), b.copy()
    for _ in range(10):
        twice, square = 2 * (x * p0 + y * p1), x * x + y * y
        x, y = (a - square * p0) / (1 + twice), (b - square * p1) / (1 + twice)
    angles = np.linspace(0, 1.2, 20_000)
    bent = angles * (1 + sum(k[i] * angles ** (2 * i + 2) for i in range(6)))
    rising = int(np.argmax(np.diff(bent) <= 0)) or len(bent)
    radius = np.hypot(x, y)
    angle = np.interp(radius, bent[:rising], angles[:rising])
    inside = radius < bent[rising - 1]
    slope = np.where(radius > 0, np.tan(angle) / np.maximum(radius, 1e-12), 1.0)
    rays = np.stack([x * slope, y * slope, np.ones_like(x)], axis=-1)
    folder, K = root / "0", np.array([[300.0, 0, 255.5], [0, 300, 255.5], [0, 0, 1]])
    (folder / "rgb").mkdir(parents=True)
    lines, views = (
        [
            "graph_uid,tracking_timestamp_us,"
            + ",".join(f"{name}_world_device" for name in ("tx", "ty", "tz", "qx", "qy", "qz", "qw"))
        ],
        [],
    )
    for number, exact in enumerate(exact_views(2)):
        T = exact.T_world_camera
        depth, colours = trace(T, rays)
        distance = np.where(inside, depth * np.linalg.norm(rays, axis=-1), 0.0)
        Image.fromarray(colours).save(folder / "rgb" / f"vignette{number:07d}.jpg", quality=95)
        save_depth(distance, folder / "depth" / f"depth{number:07d}.png", 1000)
        device = T @ np.linalg.inv(T_DEVICE_CAMERA)
        numbers = [*device[:3, 3], *quaternion(device)]
        lines.append(f"x,{number}," + ",".join(f"{value:.12f}" for value in numbers))
        views.append(render(T, K, (512, 512)))
    (folder / "trajectory.csv").write_text("\n".join(lines) + "\n")
    return Expected(
        tuple(views), ("0000000", "0000001"), "0", depth_error=0.02, share_within=0.99, exact_pictures=False
    )


@miniature("habitat")
def habitat(root: Path) -> Expected:
    import OpenEXR

    views, folder = exact_views(3), root / "gibson" / "Adrian"
    folder.mkdir(parents=True)
    for k, view in enumerate(views):
        stem = f"00000000_{k + 1}"
        save_jpg(view, folder / f"{stem}.jpeg")
        channels = {"Y": view.depth.astype(np.float32)}
        OpenEXR.File({"type": OpenEXR.scanlineimage}, channels).write(str(folder / f"{stem}_depth.exr"))
        about = {
            "camera_intrinsics": view.K.tolist(),
            "R_cam2world": view.T_world_camera[:3, :3].tolist(),
            "t_cam2world": view.T_world_camera[:3, 3].tolist(),
        }
        (folder / f"{stem}_camera_params.json").write_text(json.dumps(about))
    (folder / "00000001_1_camera_params.json").write_text("{}")
    return Expected(
        views,
        tuple(f"00000000_{k + 1}" for k in range(3)),
        "gibson/Adrian",
        dropped={"its camera cannot be read": 1},
    )
