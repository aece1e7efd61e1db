"""Miniatures of published layouts, written from an exact room: one function for each data set.

Each writes what the authors' files hold, by formulas of its own, and returns the frames that a converter
should find: their names, K, poses and depth.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from exact_room import ExactView, exact_views
from PIL import Image
from scipy.spatial.transform import Rotation


@dataclass(frozen=True, eq=False)
class Expected:
    """What a converter should find."""

    views: tuple[ExactView, ...]
    names: tuple[str, ...]
    scene: str
    depth_error: float = 0.0006
    """Largest error of the depth in metres; what files can hold."""
    share_within: float = 1.0
    """Share of the depth that is so exact; less where depth is carried over by the nearest pixel."""
    has_depth: bool = True
    is_metric: bool = True
    unit: float = 1.0
    """Units of the data set for one metre."""
    dropped: dict[str, int] = field(default_factory=dict)
    exact_pictures: bool = True
    """Whether the picture's bytes are those of the source file."""


MINIATURES: dict[str, Callable[[Path], Expected]] = {}


def miniature(name: str) -> Callable[[Callable[[Path], Expected]], Callable[[Path], Expected]]:
    """Register a writer."""

    def register(writer: Callable[[Path], Expected]) -> Callable[[Path], Expected]:
        MINIATURES[name] = writer
        return writer

    return register


def save_jpg(view: ExactView, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    view.image.save(path, quality=95)


def save_png(view: ExactView, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    view.image.save(path)


def save_depth(depth: np.ndarray, path: Path, per_metre: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(depth * per_metre).astype(np.uint16)).save(path)


def save_array(values: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def save_text(values: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, np.atleast_2d(values), fmt="%.12f")


def quaternion(T: np.ndarray) -> np.ndarray:
    """x, y, z, w."""
    return Rotation.from_matrix(T[:3, :3]).as_quat()


def row(T: np.ndarray) -> np.ndarray:
    """tx ty tz qx qy qz qw."""
    return np.concatenate([T[:3, 3], quaternion(T)])


@miniature("scannet")
def scannet(root: Path) -> Expected:
    views, folder = exact_views(4, 640, 480), root / "scans" / "scene0000_00"
    K = views[0].K.copy()
    # Colour is larger than depth: 1296x968, of which 640x480 is made.
    for axis, factor in ((0, 1296 / 640), (1, 968 / 480)):
        K[axis, axis] *= factor
        K[axis, 2] = (K[axis, 2] + 0.5) * factor - 0.5
    K4 = np.eye(4)
    K4[:3, :3] = K
    save_text(K4, folder / "intrinsic" / "intrinsic_color.txt")
    (folder / "color").mkdir()
    for k, view in enumerate([*views, views[0]]):
        view.image.resize((1296, 968), Image.Resampling.BICUBIC).save(folder / "color" / f"{k}.jpg")
        save_depth(view.depth, folder / "depth" / f"{k}.png", 1000)
        pose = view.T_world_camera if k < len(views) else np.full((4, 4), -np.inf)
        save_text(pose, folder / "pose" / f"{k}.txt")
    dropped = {"its pose is not finite": 1}
    return Expected(views, ("0", "1", "2", "3"), "scans/scene0000_00", dropped=dropped, exact_pictures=False)


@miniature("tum")
def tum(root: Path) -> Expected:
    views, folder = exact_views(4), root / "rgbd_dataset_freiburg1_desk"
    lists: dict[str, list[str]] = {"rgb": ["# colour"], "depth": ["# depth"]}
    truth, names = ["# timestamp tx ty tz qx qy qz qw"], []
    for k, view in enumerate(views):
        stamp = 1305031230.0 + 0.1 * k
        save_png(view, folder / "rgb" / f"{stamp:.6f}.png")
        save_depth(view.depth, folder / "depth" / f"{stamp + 0.012:.6f}.png", 5000)
        lists["rgb"].append(f"{stamp:.6f} rgb/{stamp:.6f}.png")
        lists["depth"].append(f"{stamp + 0.012:.6f} depth/{stamp + 0.012:.6f}.png")
        truth.append(f"{stamp + 0.004:.4f} " + " ".join(f"{x:.12f}" for x in row(view.T_world_camera)))
        names.append(f"{stamp:.6f}")
    # A picture that no pose belongs to.
    save_png(views[0], folder / "rgb" / "1305031240.000000.png")
    save_depth(views[0].depth, folder / "depth" / "1305031240.000000.png", 5000)
    for kind in lists:
        lists[kind].append(f"1305031240.000000 {kind}/1305031240.000000.png")
        (folder / f"{kind}.txt").write_text("\n".join(lists[kind]) + "\n")
    (folder / "groundtruth.txt").write_text("\n".join(truth) + "\n")
    np.savetxt(folder / "intrinsics.txt", views[0].K)
    return Expected(views, tuple(names), folder.name, dropped={"no pose was measured within 20 ms": 1})


@miniature("tartanair")
def tartanair(root: Path) -> Expected:
    K = np.array([[320.0, 0, 320], [0, 320, 240], [0, 0, 1]])
    from exact_room import render

    views = tuple(render(view.T_world_camera, K, (640, 480)) for view in exact_views(3))
    folder = root / "office" / "Easy" / "P000"
    # Camera axes: x forward, y right, z down.
    axes = np.array([[0.0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    rows = []
    for k, view in enumerate(views):
        depth = view.depth.astype(np.float32)
        depth[:40] = 3000.0  # the sky
        save_png(view, folder / "image_left" / f"{k:06d}_left.png")
        save_array(depth, folder / "depth_left" / f"{k:06d}_left_depth.npy")
        rows.append(row(view.T_world_camera @ axes))
    # A stub of another file system, and one picture more than poses.
    (folder / "image_left" / "._000000_left.png").write_bytes(b"stub")
    save_png(views[0], folder / "image_left" / "000003_left.png")
    save_text(np.array(rows), folder / "pose_left.txt")
    cut = tuple(
        ExactView(
            view.rgb, np.where(np.arange(480)[:, None] < 40, 0.0, view.depth), view.K, view.T_world_camera
        )
        for view in views
    )
    dropped = {"there are fewer poses than pictures": 1}
    return Expected(cut, ("000000", "000001", "000002"), "office/Easy/P000", dropped=dropped)


@miniature("7scenes")
def seven_scenes(root: Path) -> Expected:
    """Registered already, as 3DMatch publishes; the registration itself has a test of its own."""
    views, folder = exact_views(3), root / "lounge" / "seq-01"
    for k, view in enumerate(views):
        stem = f"frame-{k:06d}"
        save_png(view, folder / f"{stem}.color.png")
        save_depth(view.depth, folder / f"{stem}.depth.png", 1000)
        save_text(view.T_world_camera, folder / f"{stem}.pose.txt")
    np.savetxt(root / "lounge" / "camera-intrinsics.txt", views[0].K)
    return Expected(views, tuple(f"frame-{k:06d}" for k in range(3)), "lounge/seq-01")


@miniature("frames")
def frames_json(root: Path) -> Expected:
    import json

    views = exact_views(3)
    frames = {}
    for k, view in enumerate(views):
        save_png(view, root / "images" / f"{k}.png")
        save_array((view.depth * 1000).astype(np.float32), root / "depth" / f"{k}.npy")
        frames[f"{k}.png"] = {
            "image": f"images/{k}.png",
            "depth": f"depth/{k}.npy",
            "depth_unit_m": 0.001,
            "K": view.K.tolist(),
            "T_world_camera": view.T_world_camera.tolist(),
        }
    frames["broken"] = {"image": "images/0.png"}
    (root / "frames.json").write_text(json.dumps({"frames": frames, "groups": [["0.png", "1.png"]]}))
    names = tuple(frames)[:3]
    return Expected(views, names, root.name, dropped={"its entry cannot be read": 1})


@miniature("nerfstudio")
def nerfstudio(root: Path) -> Expected:
    import json

    views = exact_views(3)
    K = views[0].K
    content: dict = {"w": 160, "h": 120, "camera_model": "PINHOLE", "frames": []}
    # Pixels count from the corner.
    content |= {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2] + 0.5, "cy": K[1, 2] + 0.5}
    for k, view in enumerate(views):
        save_jpg(view, root / "images" / f"frame_{k}.jpg")
        # y up, z backwards.
        pose = view.T_world_camera.copy()
        pose[:3, 1:3] *= -1
        content["frames"].append({"file_path": f"images/frame_{k}.jpg", "transform_matrix": pose.tolist()})
    content["frames"].append({"file_path": "images/frame_9.jpg", "transform_matrix": pose.tolist()})
    (root / "transforms.json").write_text(json.dumps(content))
    return Expected(
        views,
        tuple(f"frame_{k}" for k in range(3)),
        root.name,
        has_depth=False,
        is_metric=False,
        dropped={"its picture is missing": 1},
    )


def write_colmap(model: Path, views: tuple[ExactView, ...], names: list[str]) -> None:
    """A model in text."""
    model.mkdir(parents=True, exist_ok=True)
    K, (width, height) = views[0].K, views[0].size
    numbers = [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5]
    (model / "cameras.txt").write_text(
        f"# cameras\n1 PINHOLE {width} {height} {' '.join(map(str, numbers))}\n"
    )
    lines = ["# images"]
    for k, (view, name) in enumerate(zip(views, names, strict=True)):
        T = np.linalg.inv(view.T_world_camera)
        x, y, z, w = quaternion(T)
        pose = " ".join(f"{value:.12f}" for value in (w, x, y, z, *T[:3, 3]))
        # The line of points of the first picture is empty.
        lines += [f"{k + 1} {pose} 1 {name}", "10.0 20.0 -1" if k else ""]
    (model / "images.txt").write_text("\n".join(lines) + "\n")
    (model / "points3D.txt").write_text("# points\n")


@miniature("colmap")
def colmap(root: Path) -> Expected:
    views = exact_views(3)
    names = ["a b.png", "b.png", "c.png"]
    for view, name in zip(views, names, strict=True):
        save_png(view, root / "images" / name)
        stored = root / "stereo" / "depth_maps" / f"{name}.geometric.bin"
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_bytes(b"160&120&1&" + view.depth.astype("<f4").tobytes())
    write_colmap(root / "sparse" / "0", views, names)
    return Expected(views, tuple(names), root.name, is_metric=False)


@miniature("list")
def plain_list(root: Path) -> Expected:
    views = exact_views(3)
    lines = ["scene,image,fx,fy,cx,cy,tx,ty,tz,qx,qy,qz,qw,depth,depth_unit_m"]
    for k, view in enumerate(views):
        save_png(view, root / f"{k}.png")
        save_depth(view.depth, root / f"{k}-depth.png", 2000)
        K = view.K
        numbers = [K[0, 0], K[1, 1], K[0, 2], K[1, 2], *row(view.T_world_camera)]
        lines.append(f"hall,{k}.png,{','.join(map(str, numbers))},{k}-depth.png,0.0005")
    lines.append("hall,x.png,a,b,c,d,0,0,0,0,0,0,1,,")
    (root / "frames.csv").write_text("\n".join(lines) + "\n")
    return Expected(views, ("0.png", "1.png", "2.png"), "hall", dropped={"its row cannot be read": 1})
