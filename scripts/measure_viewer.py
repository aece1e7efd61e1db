"""Frames per second of the viewer with few and with many points, in headless Chromium.

    python scripts/measure_viewer.py [--millions 1 20] [--budget 1000000] [--seconds 10]

A room of four walls, floor and ceiling, sampled by cameras in its middle, is turned by the mouse while frames
are counted. Without a GPU the browser draws with the processor: then only the ratio means anything. Needs
playwright and Chromium.
"""

import argparse
import shutil
import sys
import time
from typing import Any

import numpy as np

from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View
from g2vlm.viewer.points import ShownPoints
from g2vlm.viewer.serving import Viewer

SIDE_PX, SIZE = 1000, (900, 640)
BROWSER = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
COUNT_FRAMES = """(seconds) => new Promise((resolve) => {
  const start = performance.now();
  let frames = 0;
  const step = (now) => {
    frames += 1;
    if (now - start < 1000 * seconds) requestAnimationFrame(step);
    else resolve(1000 * frames / (now - start));
  };
  requestAnimationFrame(step);
})"""


def box_scene(millions: int) -> Scene:
    """A box of 6 x 3 x 6 m; every view samples it once more, a little elsewhere."""
    return Scene(tuple(_view(index) for index in range(millions)), Scale(ScaleKind.METRIC, "made up"))


def _view(index: int) -> View:
    draw = np.random.default_rng(index)
    turn = 2.4 * index
    R = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    place = np.array([draw.uniform(-1, 1), draw.uniform(-0.3, 0.3), draw.uniform(-1, 1)])
    v, u = np.mgrid[:SIDE_PX, :SIDE_PX]
    rays = np.stack([(u + 0.5 - SIDE_PX / 2) / 400, (v + 0.5 - SIDE_PX / 2) / 400, np.ones(u.shape)], axis=-1)
    world = rays @ R.T
    # Half a pixel off the middle, so that no ray is parallel to a wall.
    reach = np.where(world > 0, ([3, 1.5, 3] - place) / world, ([-3, -1.5, -3] - place) / world)
    hit = reach.min(axis=-1, keepdims=True)
    pose = np.eye(4, dtype=np.float32)
    pose[:3, :3], pose[:3, 3] = R, place
    cells = (np.floor((place + world * hit) * 2).sum(axis=-1) % 2)[..., None]
    return View(
        name=f"{index}.png",
        rgb=np.where(cells, [210, 180, 140], [90, 120, 170]).astype(np.uint8),
        points_camera=(rays * hit).astype(np.float32),
        T_world_camera=pose,
        K=np.array([[400, 0, SIDE_PX / 2 - 0.5], [0, 400, SIDE_PX / 2 - 0.5], [0, 0, 1]], dtype=np.float32),
        confidence=np.ones(u.shape, dtype=np.float32),
        valid=np.ones(u.shape, dtype=bool),
        original_size=(SIDE_PX, SIDE_PX),
        T_model_original=np.eye(3),
    )


def measure(scene: Scene, budget: int, seconds: float) -> dict[str, float]:
    """Seconds to prepare a scene, frames per second while it is turned, and points drawn."""
    start = time.perf_counter()
    points = ShownPoints.of(scene)
    prepared_s = time.perf_counter() - start
    viewer = Viewer(points, port=18680, budget=budget)
    try:
        rate, drawn = _turned(viewer, seconds)
    finally:
        viewer.close()
    return {"prepare_s": prepared_s, "frames_per_s": rate, "drawn": drawn}


def _turned(viewer: Viewer, seconds: float) -> tuple[float, int]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=BROWSER)
        page = chromium.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        page.goto(viewer.address)
        page.get_by_text("Export").wait_for(timeout=120_000)
        drawn = _settled(page, viewer)
        page.evaluate("window.counted = (" + COUNT_FRAMES + f")({seconds})")
        page.mouse.move(200, 400)
        page.mouse.down()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for x in (*range(200, 400, 20), *range(400, 200, -20)):
                page.mouse.move(x, 400)
        page.mouse.up()
        rate = float(page.evaluate("window.counted"))
        chromium.close()
    return rate, drawn


def _settled(page: Any, viewer: Viewer) -> int:
    """Wait until no more points arrive; how many there are."""
    before, now = -1, 0
    while now == 0 or now != before:
        before = now
        page.wait_for_timeout(4000)
        now = next(iter(viewer.sessions.values())).cloud.num_drawn
    return now


def main() -> int:
    """Measure every size, and print a table with the ratio to the first."""
    parser = argparse.ArgumentParser(description="Frames per second of the viewer.")
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 20])
    parser.add_argument("--budget", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    print("| points, millions | prepared, s | drawn | frames/s | ratio |\n|---|---|---|---|---|")
    first = None
    for millions in options.millions:
        found = measure(box_scene(millions), options.budget, options.seconds)
        first = first or found["frames_per_s"]
        print(
            f"| {millions} | {found['prepare_s']:.1f} | {found['drawn']:,} | {found['frames_per_s']:.2f} | "
            f"{found['frames_per_s'] / first:.2f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
