"""Draws the pictures of README and docs from our own rendered room.

    python scripts/render_pictures.py [--folder docs/pictures] [--only NAME ...]

The scene is the room of the packaged example photos with its true geometry, except in `answer`, where the
bundled model has reconstructed the photos and answers. `viewer` and `answer` are screenshots of `g2vlm view`
(they need playwright and Chromium); the others are drawn here from the exported files.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image
from render_examples import PATH, SEED, true_sample

import g2vlm.export
from g2vlm.cli.demo import QUESTION
from g2vlm.cli.shared.scene_options import EXAMPLES_IN_PACKAGE
from g2vlm.export.conventions import camera_pose
from g2vlm.export.frusta import EDGES, camera_color, frustum_corners, frustum_depth
from g2vlm.geometry.cameras import unproject
from g2vlm.scene.ground import find_ground
from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View
from g2vlm.viewer.cameras import Stand, overview

WIDTH, HEIGHT = 800, 500
BACKGROUND = (16, 18, 21)
_TRIES = 8
BROWSER = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def example_scene() -> Scene:
    """The example photos with the true depth and cameras of their room."""
    sample = true_sample(SEED, PATH)
    points = unproject(sample.depth, sample.K)
    views = []
    for index, path in enumerate(sorted(EXAMPLES_IN_PACKAGE.glob("*.[jp]*g"))):
        rgb = np.asarray(Image.open(path).convert("RGB"))
        height, width = rgb.shape[:2]
        views.append(
            View(
                name=path.name,
                rgb=rgb,
                points_camera=points[index].numpy(),
                T_world_camera=sample.T_world_camera[index].numpy(),
                K=sample.K[index].numpy(),
                confidence=np.ones((height, width), dtype=np.float32),
                valid=np.ones((height, width), dtype=bool),
                original_size=(width, height),
                T_model_original=np.eye(3),
                source_path=str(path),
            )
        )
    return Scene(tuple(views), Scale(ScaleKind.METRIC, "the renderer"))


class Canvas:
    """A picture with depth, for points, triangles and lines."""

    def __init__(self, stand: Stand) -> None:
        forward = stand.look_at - stand.position
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, stand.up)
        right /= np.linalg.norm(right)
        self._axes = np.stack([right, np.cross(forward, right), forward])
        self._position = stand.position
        self._focal_px = HEIGHT / 2 / np.tan(stand.fov_rad / 2)
        self.pixels = np.full((HEIGHT, WIDTH, 3), BACKGROUND, dtype=np.uint8)
        self._depth = np.full((HEIGHT, WIDTH), np.inf)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and depths of points of the world."""
        local = (points - self._position) @ self._axes.T
        depth = local[:, 2]
        pixels = local[:, :2] / np.maximum(depth, 1e-6)[:, None] * self._focal_px
        return pixels + np.array([WIDTH / 2, HEIGHT / 2]), depth

    def draw_points(self, points: np.ndarray, colors: np.ndarray, size_m: float) -> None:
        """Squares that are as large as a length is at their depth."""
        pixels, depth = self.project(points.astype(np.float64))
        radius = np.clip(np.rint(size_m / np.maximum(depth, 0.05) * self._focal_px / 2), 0, 6).astype(int)
        for reach in range(int(radius.max()) + 1):
            chosen = (radius == reach) & (depth > 0.05)
            for dv in range(-reach, reach + 1):
                for du in range(-reach, reach + 1):
                    self._put(pixels[chosen] + np.array([du, dv]), depth[chosen], colors[chosen])

    def _put(self, pixels: np.ndarray, depth: np.ndarray, colors: np.ndarray) -> None:
        column, row = np.rint(pixels).astype(int).T
        inside = (column >= 0) & (row >= 0) & (column < WIDTH) & (row < HEIGHT)
        column, row, depth, colors = column[inside], row[inside], depth[inside], colors[inside]
        far_first = np.argsort(-depth)
        column, row, depth, colors = column[far_first], row[far_first], depth[far_first], colors[far_first]
        nearer = depth < self._depth[row, column]
        self._depth[row[nearer], column[nearer]] = depth[nearer]
        self.pixels[row[nearer], column[nearer]] = colors[nearer]

    def draw_triangles(self, corners: np.ndarray, faces: np.ndarray, colors: np.ndarray) -> None:
        """Triangles in one colour each, farther ones first; nothing else may stand before them."""
        import cv2

        pixels, depth = self.project(corners.astype(np.float64))
        visible = faces[(depth[faces] > 0.05).all(axis=1)]
        for face in visible[np.argsort(-depth[visible].mean(axis=1))]:
            color = colors[face].mean(axis=0).tolist()
            cv2.fillConvexPoly(self.pixels, np.rint(pixels[face] * 16).astype(np.int32), color, shift=4)

    def draw_cameras(self, scene: Scene) -> None:
        """Pyramids of all cameras."""
        import cv2

        for index, view in enumerate(scene.views):
            corners = frustum_corners(view, frustum_depth(scene)) * [1, -1, -1]
            pose = camera_pose(view)
            pixels, depth = self.project(corners @ pose[:3, :3].T + pose[:3, 3])
            color = [round(255 * part) for part in camera_color(index)]
            for start, end in EDGES:
                if min(depth[start], depth[end]) > 0.05:
                    ends = (tuple(np.rint(pixels[place]).astype(int).tolist()) for place in (start, end))
                    cv2.line(self.pixels, *ends, color, 2, cv2.LINE_AA)

    def image(self) -> Image.Image:
        """What was drawn."""
        return Image.fromarray(self.pixels)


def usual_stand(scene: Scene) -> Stand:
    """Above and behind the cameras, nearer than the viewer begins: a picture has no controls beside it."""
    stand = overview(scene, find_ground(scene), WIDTH / HEIGHT)
    return replace(stand, position=stand.look_at + 0.68 * (stand.position - stand.look_at))


def without_ceiling(points: np.ndarray, scene: Scene) -> np.ndarray:
    """Which points hang so low that they hide nothing from above."""
    ground = find_ground(scene)
    return points @ ground.up - ground.height < 2.2


def draw_cloud(scene: Scene, folder: Path) -> Image.Image:
    """The points of the .ply, which are those of .glb, .html, .usd and .rrd too."""
    cloud = trimesh.load(scene.save(folder / "scene.ply"))
    points, colors = np.asarray(cloud.vertices), np.asarray(cloud.colors)[:, :3]
    shown = without_ceiling(points, scene)
    canvas = Canvas(usual_stand(scene))
    canvas.draw_points(points[shown], colors[shown], 0.016)
    canvas.draw_cameras(scene)
    return canvas.image()


def draw_mesh(scene: Scene, folder: Path) -> Image.Image:
    """The surface of the first view, lit a little so that its shape shows."""
    first = Scene(scene.views[:1], scene.scale)
    mesh = trimesh.load(g2vlm.export.save_scene(first, f"mesh:{folder / 'mesh.ply'}"))
    light = 0.55 + 0.45 * np.abs(np.asarray(mesh.vertex_normals) @ [0.5, -0.7, -0.5])
    colors = np.asarray(mesh.visual.vertex_colors)[:, :3] * light[:, None]
    canvas = Canvas(usual_stand(scene))
    faces = np.asarray(mesh.faces)
    low = without_ceiling(np.asarray(mesh.vertices), scene)
    canvas.draw_triangles(np.asarray(mesh.vertices), faces[low[faces].all(axis=1)], colors)
    return canvas.image()


def draw_colmap(scene: Scene, folder: Path) -> Image.Image:
    """The points and cameras of the COLMAP model, read back as text."""
    from g2vlm.scene.save_options import SaveOptions

    options = SaveOptions(max_points=15_000, text=True)
    model = g2vlm.export.save_scene(scene, f"colmap:{folder / 'colmap'}", options)
    text = (model / "sparse" / "0" / "points3D.txt").read_text().splitlines()
    rows = np.array([line.split()[1:7] for line in text if not line.startswith("#")], dtype=float)
    shown = without_ceiling(rows[:, :3], scene)
    canvas = Canvas(usual_stand(scene))
    canvas.draw_points(rows[shown, :3], rows[shown, 3:].astype(np.uint8), 0.02)
    canvas.draw_cameras(scene)
    return canvas.image()


def draw_gaussians(scene: Scene, folder: Path) -> Image.Image:
    """The Gaussians of the initialisation, each as a square of its own width."""
    from g2vlm.scene.save_options import SaveOptions

    options = SaveOptions(max_points=40_000)
    file = g2vlm.export.save_scene(scene, f"gaussians:{folder / 'start.ply'}", options)
    data = trimesh.load(file).metadata["_ply_raw"]["vertex"]["data"]
    points = np.stack([data[axis] for axis in "xyz"], axis=1).reshape(-1, 3)
    # The constant of the zeroth spherical harmonic.
    colors = np.stack([data[f"f_dc_{i}"] for i in range(3)], axis=1).reshape(-1, 3) * 0.28209 + 0.5
    shown = without_ceiling(points, scene)
    canvas = Canvas(usual_stand(scene))
    size = 2 * float(np.exp(np.median(data["scale_0"])))
    canvas.draw_points(points[shown], np.clip(colors[shown] * 255, 0, 255).astype(np.uint8), size)
    return canvas.image()


def draw_photos(scene: Scene, folder: Path) -> Image.Image:
    """All photos in a row."""
    return _row([Image.fromarray(view.rgb) for view in scene.views])


def draw_previews(scene: Scene, folder: Path) -> Image.Image:
    """Depth and normals of two views, from the previews."""
    made = g2vlm.export.save_scene(scene, f"previews:{folder / 'previews'}")
    files = sorted(path for path in made.rglob("*.png") if "confidence" not in str(path))
    return _row([Image.open(path).convert("RGB") for path in files[:4]])


def draw_sheet(scene: Scene, folder: Path) -> Image.Image:
    """`scene.plot()`."""
    scene.plot().savefig(folder / "sheet.png", dpi=80)
    return Image.open(folder / "sheet.png").convert("RGB")


def draw_viewer(scene: Scene, folder: Path) -> Image.Image:
    """`g2vlm view` on the scene, with the tab that measures."""
    from g2vlm.viewer.points import ShownPoints
    from g2vlm.viewer.serving import Viewer

    def act(page: Any, viewer: Viewer) -> None:
        page.get_by_role("tab", name="Measure").click()
        label = "//label[normalize-space()='Click to measure']"
        page.locator(f"xpath={label}/following::input[not(@type='hidden')][1]").click()
        page.wait_for_timeout(1000)
        _click_until(page, (640, 440), "Click the second point")
        _click_until(page, (530, 475), "Metric:")
        page.wait_for_timeout(8000)

    return _screenshot(Viewer(ShownPoints.of(scene), port=18480, budget=400_000), act, folder)


def _click_until(page: Any, place: tuple[int, int], text: str) -> None:
    """Click until the page says something: where it draws slowly, clicks may come before the points."""
    from playwright.sync_api import TimeoutError as NotYetError

    for _ in range(_TRIES):
        page.mouse.click(*place)
        try:
            page.get_by_text(text).wait_for(timeout=15_000)
        except NotYetError:
            continue
        return
    raise SystemExit(f"Expected the page to say {text!r} after clicks at {place}: look at it in a browser.")


def draw_answer(scene: Scene, folder: Path) -> Image.Image:
    """`g2vlm view` after the bundled model has seen the example photos and was asked."""
    import g2vlm
    from g2vlm.viewer.limits import Limits
    from g2vlm.viewer.serving import Viewer
    from g2vlm.viewer.studio import Studio

    studio = Studio(lambda told: g2vlm.load("g2vlm-tiny", device="cpu"), Limits(), EXAMPLES_IN_PACKAGE)

    def act(page: Any, viewer: Viewer) -> None:
        page.get_by_role("button", name="Try the example photos").click()
        page.get_by_text("4 views,").wait_for(timeout=120_000)
        page.get_by_role("tab", name="Ask").click()
        page.locator("textarea").first.fill(QUESTION)
        page.get_by_role("button", name="Ask").click()
        page.wait_for_function("document.querySelector('textarea').value === ''", timeout=120_000)
        page.wait_for_timeout(3000)

    return _screenshot(Viewer(None, studio, port=18580), act, folder)


def _screenshot(viewer: Any, act: Callable[[Any, Any], None], folder: Path) -> Image.Image:
    from playwright.sync_api import sync_playwright

    path = folder / "shot.png"
    try:
        with sync_playwright() as driver:
            chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=BROWSER)
            page = chromium.new_page(viewport={"width": 1100, "height": 640})
            page.goto(viewer.address)
            page.get_by_text("Export").wait_for()
            page.wait_for_timeout(6000)
            page.locator("button.mantine-Notification-closeButton").first.click()
            act(page, viewer)
            page.screenshot(path=path)
            chromium.close()
    finally:
        viewer.close()
    return Image.open(path).convert("RGB")


def _row(pictures: list[Image.Image]) -> Image.Image:
    """Pictures of one height beside each other, `WIDTH` wide together."""
    gap, each = 6, (WIDTH + 160 - 6 * (len(pictures) - 1)) // len(pictures)
    height = round(each * pictures[0].height / pictures[0].width)
    row = Image.new("RGB", (each * len(pictures) + gap * (len(pictures) - 1), height), "white")
    for place, picture in enumerate(pictures):
        row.paste(picture.resize((each, height), Image.Resampling.LANCZOS), (place * (each + gap), 0))
    return row


PICTURES: dict[str, Callable[[Scene, Path], Image.Image]] = {
    "photos": draw_photos,
    "cloud": draw_cloud,
    "mesh": draw_mesh,
    "colmap": draw_colmap,
    "gaussians": draw_gaussians,
    "previews": draw_previews,
    "sheet": draw_sheet,
    "viewer": draw_viewer,
    "answer": draw_answer,
}


def main() -> int:
    """Draw what was asked for."""
    parser = argparse.ArgumentParser(description="Draw the pictures of README and docs.")
    parser.add_argument("--folder", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--only", nargs="*", choices=PICTURES, default=list(PICTURES))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    scene = example_scene()
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            picture = PICTURES[name](scene, Path(folder))
        path = options.folder / f"{name}.webp"
        picture.save(path, "WEBP", quality=82, method=6)
        print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
