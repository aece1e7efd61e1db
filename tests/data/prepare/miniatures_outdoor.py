"""Miniatures of data sets of objects, streets, landscapes and buildings."""

import gzip
import json
import math
from pathlib import Path

import numpy as np
from exact_room import ExactView, exact_views, render, trace
from miniatures import (
    Expected,
    miniature,
    quaternion,
    save_array,
    save_depth,
    save_jpg,
    save_png,
    save_text,
    write_colmap,
)
from PIL import Image

GL = np.diag([1.0, -1.0, -1.0, 1.0])


@miniature("co3d")
def co3d(root: Path) -> Expected:
    """Two formats of intrinsics; axes x left, y up; row vectors."""
    views, sequence = exact_views(3), "110_13051_23361"
    frames = []
    factor = 2.5
    for k, view in enumerate(views):
        place = f"apple/{sequence}"
        save_jpg(view, root / place / "images" / f"frame{k + 1:06d}.jpg")
        bits = (view.depth * 3 / factor).astype(np.float16).view(np.uint16)
        (root / place / "depths").mkdir(exist_ok=True)
        Image.fromarray(bits).save(root / place / "depths" / f"frame{k + 1:06d}.jpg.geometric.png")
        mask = np.full(view.depth.shape, 255, dtype=np.uint8)
        mask[:, :20] = 0
        (root / place / "depth_masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / place / "depth_masks" / f"frame{k + 1:06d}.png")
        T = np.linalg.inv(view.T_world_camera)
        T[:3, 3] *= 3
        axes = np.diag([-1.0, -1.0, 1.0]) @ T[:3, :3]
        isotropic = k % 2 == 0
        half = np.array([60.0, 60.0]) if isotropic else np.array([80.0, 60.0])
        centre = view.K[:2, 2] + 0.5
        frames.append(
            {
                "sequence_name": sequence,
                "frame_number": k + 1,
                "image": {"path": f"{place}/images/frame{k + 1:06d}.jpg", "size": [120, 160]},
                "depth": {
                    "path": f"{place}/depths/frame{k + 1:06d}.jpg.geometric.png",
                    "scale_adjustment": factor,
                    "mask_path": f"{place}/depth_masks/frame{k + 1:06d}.png",
                },
                "viewpoint": {
                    "R": axes.T.tolist(),
                    "T": (np.diag([-1.0, -1.0, 1.0]) @ T[:3, 3]).tolist(),
                    "focal_length": (np.diag(view.K)[:2] / half).tolist(),
                    "principal_point": ((np.array([80.0, 60.0]) - centre) / half).tolist(),
                    "intrinsics_format": "ndc_isotropic" if isotropic else "ndc_norm_image_bounds",
                },
            }
        )
    frames.append({**frames[0], "frame_number": 9, "viewpoint": {"R": []}})
    with gzip.open(root / "apple" / "frame_annotations.jgz", "wt") as file:
        json.dump(frames, file)
    return Expected(
        views,
        ("000001", "000002", "000003"),
        f"apple/{sequence}",
        is_metric=False,
        unit=3.0,
        depth_error=0.002,
        dropped={"its entry cannot be read": 1},
    )


@miniature("wildrgbd")
def wildrgbd(root: Path) -> Expected:
    views, folder = exact_views(3), root / "apple" / "scenes" / "scene_000"
    rows = []
    for k, view in enumerate(views):
        save_png(view, folder / "rgb" / f"{k:05d}.png")
        save_depth(view.depth, folder / "depth" / f"{k:05d}.png", 1000)
        rows.append([k, *view.T_world_camera.ravel()])
    save_text(np.array(rows), folder / "cam_poses.txt")
    about = {"w": 160, "h": 120, "K": views[0].K.T.ravel().tolist()}
    (folder / "metadata").write_text(json.dumps(about))
    return Expected(views, ("00000", "00001", "00002"), "apple/scenes/scene_000")


def save_mvsnet(view: ExactView, path: Path, unit: float) -> None:
    T = np.linalg.inv(view.T_world_camera)
    T[:3, 3] *= unit
    lines = ["extrinsic", *(" ".join(f"{x:.10f}" for x in row) for row in T), "", "intrinsic"]
    lines += [" ".join(f"{x:.10f}" for x in row) for row in view.K]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, "", "425.0 2.5 192 935.0"]) + "\n")


def save_pfm(depth: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = depth.shape
    path.write_bytes(f"Pf\n{width} {height}\n-1.0\n".encode() + depth[::-1].astype("<f4").tobytes())


@miniature("dtu")
def dtu(root: Path) -> Expected:
    """A scan as MVSNet hands it on, and one in the layout of IDR beside it, which has no depth."""
    views, folder = exact_views(3), root / "scan1"
    projections = {}
    for k, view in enumerate(views):
        save_jpg(view, folder / "images" / f"{k:08d}.jpg")
        save_mvsnet(view, folder / "cams" / f"{k:08d}_cam.txt", 1000)
        save_array((view.depth * 1000).astype(np.float32), folder / "depths" / f"{k:08d}.npy")
        save_png(view, root / "dtu_scan65" / "image" / f"{k:06d}.png")
        T = np.linalg.inv(view.T_world_camera)
        T[:3, 3] *= 1000
        P = np.eye(4)
        P[:3] = -7.5 * view.K @ T[:3]
        projections |= {f"world_mat_{k}": P, f"world_mat_inv_{k}": np.linalg.inv(P)}
    np.savez(root / "dtu_scan65" / "cameras_sphere.npz", **projections)
    return Expected(views, ("00000000", "00000001", "00000002"), "scan1")


@miniature("blendedmvs")
def blendedmvs(root: Path) -> Expected:
    views, folder = exact_views(3), root / "5a3ca9cb270f0e3f14d0eddb"
    for k, view in enumerate(views):
        save_jpg(view, folder / "blended_images" / f"{k:08d}.jpg")
        save_jpg(view, folder / "blended_images" / f"{k:08d}_masked.jpg")
        save_mvsnet(view, folder / "cams" / f"{k:08d}_cam.txt", 40)
        save_pfm(view.depth * 40, folder / "rendered_depth_maps" / f"{k:08d}.pfm")
    names = ("00000000", "00000001", "00000002")
    return Expected(views, names, folder.name, is_metric=False, unit=40.0)


@miniature("megadepth")
def megadepth(root: Path) -> Expected:
    import h5py

    views, folder = exact_views(3), root / "Undistorted_SfM" / "0000"
    names = ["a.jpg", "b.jpg", "c.jpg"]
    depths = root / "phoenix" / "S6" / "zl548" / "MegaDepth_v1" / "0000" / "dense0" / "depths"
    depths.mkdir(parents=True)
    for view, name in zip(views, names, strict=True):
        save_jpg(view, folder / "images" / name)
        depth = view.depth.astype(np.float32)
        depth[:5] = -1.0  # only ordinal
        with h5py.File(depths / name.replace(".jpg", ".h5"), "w") as file:
            file["depth"] = depth
    save_jpg(views[0], folder / "images" / "d.jpg")
    write_colmap(folder / "sparse-txt", (*views, views[0]), [*names, "d.jpg"])
    return Expected(views, tuple(names), "0000", is_metric=False, dropped={"its depth is missing": 1})


@miniature("dl3dv")
def dl3dv(root: Path) -> Expected:
    """Cameras of large pictures, of which only a quarter of the size is handed out."""
    views, folder = exact_views(3), root / "1K" / "0a1b"
    K = views[0].K
    content: dict = {"w": 640, "h": 480, "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0, "frames": []}
    content |= {
        "fl_x": 4 * K[0, 0],
        "fl_y": 4 * K[1, 1],
        "cx": 4 * (K[0, 2] + 0.5),
        "cy": 4 * (K[1, 2] + 0.5),
    }
    for k, view in enumerate(views):
        save_png(view, folder / "images_4" / f"frame_{k + 1:05d}.png")
        name = f"images/frame_{k + 1:05d}.png"
        content["frames"].append({"file_path": name, "transform_matrix": (view.T_world_camera @ GL).tolist()})
    content["frames"].append({**content["frames"][0], "file_path": "images/frame_00009.png"})
    content["camera_model"] = "OPENCV"
    (folder / "transforms.json").write_text(json.dumps(content))
    return Expected(
        views,
        tuple(f"frame_{k + 1:05d}" for k in range(3)),
        "1K/0a1b",
        has_depth=False,
        is_metric=False,
        dropped={"its picture is missing": 1},
    )


@miniature("realestate10k")
def realestate10k(root: Path) -> Expected:
    views, clip = exact_views(3), "000c3ab189999a83"
    lines, names = ["https://www.youtube.com/watch?v=x"], []
    for k, view in enumerate([*views, views[0]]):
        stamp, K = 45979267 + 33366 * k, view.K
        inner = [K[0, 0] / 160, K[1, 1] / 120, (K[0, 2] + 0.5) / 160, (K[1, 2] + 0.5) / 120, 0, 0]
        T = np.linalg.inv(view.T_world_camera)[:3].ravel()
        lines.append(f"{stamp} " + " ".join(f"{x:.12f}" for x in [*inner, *T]))
        if k < 3:
            save_jpg(view, root / "frames" / "train" / clip / f"{stamp}.jpg")
            names.append(str(stamp))
    (root / "train").mkdir()
    (root / "train" / f"{clip}.txt").write_text("\n".join(lines) + "\n")
    return Expected(
        views,
        tuple(names),
        f"train/{clip}",
        has_depth=False,
        is_metric=False,
        dropped={"its picture is missing": 1},
    )


@miniature("mapfree")
def mapfree(root: Path) -> Expected:
    views, folder = exact_views(3), root / "train" / "s00000"
    poses, cameras, names = ["# frame qw qx qy qz tx ty tz"], [], []
    for k, view in enumerate(views):
        name = f"seq{int(k > 0)}/frame_{k:05d}"
        save_jpg(view, folder / f"{name}.jpg")
        T, K = np.linalg.inv(view.T_world_camera), view.K
        x, y, z, w = quaternion(T)
        poses.append(f"{name}.jpg " + " ".join(f"{value:.12f}" for value in (w, x, y, z, *T[:3, 3])))
        cameras.append(f"{name}.jpg {K[0, 0]} {K[1, 1]} {K[0, 2]} {K[1, 2]} 160 120")
        names.append(name)
    poses.append("seq1/frame_00009.jpg 1 0 0 0 0 0 0")
    (folder / "poses.txt").write_text("\n".join(poses) + "\n")
    (folder / "intrinsics.txt").write_text("\n".join(cameras) + "\n")
    return Expected(
        views,
        tuple(names),
        "train/s00000",
        has_depth=False,
        dropped={"its intrinsics are missing": 1},
    )


@miniature("matrixcity")
def matrixcity(root: Path) -> Expected:
    import OpenEXR

    angle = 0.9
    focal = 0.5 * 160 / math.tan(angle / 2)
    K = np.array([[focal, 0, 79.5], [0, focal, 59.5], [0, 0, 1]])
    views = tuple(render(view.T_world_camera, K, (160, 120)) for view in exact_views(3))
    folder = root / "small_city" / "aerial" / "train" / "block_1"
    frames = []
    (folder / "depth").mkdir(parents=True)
    for k, view in enumerate(views):
        save_png(view, folder / "images" / f"{k:04d}.png")
        channel = (view.depth * 100).astype(np.float32)
        path = folder / "depth" / f"{k:04d}.exr"
        OpenEXR.File({"type": OpenEXR.scanlineimage}, {"R": channel, "G": channel, "B": channel}).write(
            str(path)
        )
        pose = view.T_world_camera @ GL
        pose[:3, :3] /= 100
        pose[3, 3] = 0.01
        frames.append({"frame_index": k, "rot_mat": pose.tolist()})
    frames.append({**frames[0], "frame_index": 7})
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))
    return Expected(
        views,
        ("0000", "0001", "0002"),
        "small_city/aerial/train/block_1",
        dropped={"its picture is missing": 1},
    )


@miniature("vkitti2")
def virtual_kitti(root: Path) -> Expected:
    views, folder = exact_views(3), root / "Scene01" / "clone"
    inner = ["frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"]
    outer = ["frame cameraID r1,1 r1,2 r1,3 t1 r2,1 r2,2 r2,3 t2 r3,1 r3,2 r3,3 t3 0 0 0 1"]
    for k, view in enumerate(views):
        frames = folder / "frames"
        save_jpg(view, frames / "rgb" / "Camera_0" / f"rgb_{k:05d}.jpg")
        depth = view.depth.copy()
        depth[:30] = 655.35
        save_depth(depth, frames / "depth" / "Camera_0" / f"depth_{k:05d}.png", 100)
        K = view.K
        for camera in (0, 1):
            inner.append(f"{k} {camera} {K[0, 0]} {K[1, 1]} {K[0, 2]} {K[1, 2]}")
            T = np.linalg.inv(view.T_world_camera)
            T[0, 3] -= 0.53 * camera
            outer.append(f"{k} {camera} " + " ".join(f"{x:.12f}" for x in T.ravel()))
    (folder / "intrinsic.txt").write_text("\n".join(inner) + "\n")
    (folder / "extrinsic.txt").write_text("\n".join(outer) + "\n")
    cut = tuple(
        ExactView(v.rgb, np.where(np.arange(120)[:, None] < 30, 0.0, v.depth), v.K, v.T_world_camera)
        for v in views
    )
    return Expected(cut, ("00000", "00001", "00002"), "Scene01/clone/Camera_0", depth_error=0.006)


@miniature("kitti")
def kitti(root: Path) -> Expected:
    """Poses are those of another camera, beside this one."""
    views = exact_views(3)
    K = views[0].K
    beside = np.eye(4)
    beside[:3, 3] = (0.06, 0.001, 0.003)
    rows = []
    for k, view in enumerate(views):
        save_png(view, root / "sequences" / "00" / "image_2" / f"{k:06d}.png")
        rows.append((view.T_world_camera @ beside)[:3].ravel())
    save_png(views[0], root / "sequences" / "00" / "image_2" / "000003.png")
    save_text(np.array(rows), root / "poses" / "00.txt")
    P0, P2 = (K @ T[:3] for T in (np.eye(4), beside))
    lines = [f"{name}: " + " ".join(f"{x:.12e}" for x in P.ravel()) for name, P in (("P0", P0), ("P2", P2))]
    (root / "sequences" / "00" / "calib.txt").write_text("\n".join(lines) + "\n")
    names = ("000000", "000001", "000002")
    return Expected(
        views,
        names,
        "sequences/00",
        has_depth=False,
        dropped={"there are fewer poses than pictures": 1},
    )


@miniature("eth3d")
def eth3d(root: Path) -> Expected:
    """Depth of photos as they were taken, through a lens that bends."""
    views, folder = exact_views(2), root / "courtyard"
    K, names = views[0].K, ["dslr_images_undistorted/DSC_0286.JPG", "dslr_images_undistorted/DSC_0287.JPG"]
    write_colmap(folder / "dslr_calibration_undistorted", views, names)
    write_colmap(folder / "dslr_calibration_jpg", views, [name.replace("_undistorted", "") for name in names])
    lens = (-0.05, 0.01, 0.001, -0.0005, 0.002, 0.0, 0.0004, -0.0002)
    numbers = [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5, *lens]
    cameras = folder / "dslr_calibration_jpg" / "cameras.txt"
    cameras.write_text(f"1 THIN_PRISM_FISHEYE 160 120 {' '.join(map(str, numbers))}\n")
    rays = bent_rays(K, lens, 160, 120)
    for view, name in zip(views, names, strict=True):
        save_jpg(view, folder / "images" / name)
        depth, _ = trace(view.T_world_camera, rays)
        depth = depth.astype("<f4")
        depth[:8] = np.inf
        path = folder / "ground_truth_depth" / "dslr_images" / Path(name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(depth.tobytes())
    return Expected(views, ("DSC_0286.JPG", "DSC_0287.JPG"), "courtyard", depth_error=0.03, share_within=0.97)


def bent_rays(K: np.ndarray, lens: tuple[float, ...], width: int, height: int) -> np.ndarray:
    """Rays of the pixels of a THIN_PRISM_FISHEYE camera, by repeating its formula backwards."""
    k1, k2, p1, p2, k3, k4, sx, sy = lens
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    a0, b0 = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
    a, b = a0.copy(), b0.copy()
    for _ in range(50):
        s = a * a + b * b
        radial = k1 * s + k2 * s**2 + k3 * s**3 + k4 * s**4
        da = a * radial + 2 * p1 * a * b + p2 * (s + 2 * a * a) + sx * s
        db = b * radial + 2 * p2 * a * b + p1 * (s + 2 * b * b) + sy * s
        a, b = a0 - da, b0 - db
    angle = np.hypot(a, b)
    slope = np.where(angle > 0, np.tan(angle) / np.maximum(angle, 1e-12), 1.0)
    return np.stack([a * slope, b * slope, np.ones_like(a)], axis=-1)
