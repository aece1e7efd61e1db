"""`.html`: the points of a scene with a small viewer of our own (WebGL 2), in one file.

The page asks for nothing from elsewhere: a content policy in it forbids that. Points are thinned to the
number asked for, packed (`packing`), deflated, and stand in the page as base64 beside a JSON header.
"""

import base64
import gzip
import html
import io
import json
import math
import os
import re
from importlib.resources import files
from typing import Any

from PIL import Image

from g2vlm.export.clouds import require_points
from g2vlm.export.conventions import camera_pose, original_intrinsics
from g2vlm.export.frusta import camera_color, frustum_depth, thumbnail
from g2vlm.export.page.packing import pack_points
from g2vlm.scene.formats import Progress, no_progress
from g2vlm.scene.ground import find_ground
from g2vlm.scene.save_options import SaveOptions
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View
from g2vlm.scene.writing import atomic_path

PAGE_POINTS = 400_000
"""Points in a page unless asked otherwise: some four megabytes."""
_SCRIPTS = ("space.js", "drawing.js", "measuring.js", "page.js")
_MOST_THUMBNAILS = 64


def write_page(
    scene: Scene,
    path: str | os.PathLike[str],
    options: SaveOptions = SaveOptions(),
    on_progress: Progress = no_progress,
) -> None:
    """Write the page of a scene.

    Args:
        scene: with valid points.
        path: where to.
        options: `max_points`, `frusta`.
        on_progress: not told: it is one step.

    Raises:
        OutputError: no valid points, or a place that cannot be written.
    """
    page = static_page(scene, max_points=options.max_points, frusta=options.frusta)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def static_page(scene: Scene, *, max_points: int | None = None, frusta: bool = True) -> str:
    """The page of a scene as text: a whole HTML document that needs neither server nor network.

    Args:
        scene: with valid points.
        max_points: the most points it holds, evenly spread; `PAGE_POINTS` if None.
        frusta: show the cameras with their pictures.

    Raises:
        OutputError: no valid points.
    """
    require_points(scene)
    cloud = scene.point_cloud(normals=True).spread(PAGE_POINTS if max_points is None else max_points)
    ground, packed = find_ground(scene), pack_points(cloud)
    thumbnails = len(scene) <= _MOST_THUMBNAILS
    header = {
        "title": f"{len(scene)} views, {len(cloud):,} points",
        "unit": scene.scale.unit,
        "scale": scene.scale.kind.value,
        "scale_source": scene.scale.source,
        "up": ground.up.tolist(),
        "floor": ground.height,
        "frustum_depth": frustum_depth(scene),
        "frusta": frusta,
        "views": [_describe(view, index, thumbnails) for index, view in enumerate(scene.views)],
        "chunk_starts": packed.chunk_starts,
        "chunk_boxes": [float(value) for value in packed.chunk_boxes.ravel()],
    }
    return _fill(header, packed.blob)


def _describe(view: View, index: int, with_thumbnail: bool) -> dict[str, Any]:
    K, (width, height) = original_intrinsics(view), view.original_size
    told: dict[str, Any] = {
        "name": view.name,
        "T_world_camera": camera_pose(view).ravel().tolist(),
        # The picture's borders on the plane at depth 1.
        "borders": [
            (-0.5 - K[0, 2]) / K[0, 0],
            (-0.5 - K[1, 2]) / K[1, 1],
            (width - 0.5 - K[0, 2]) / K[0, 0],
            (height - 0.5 - K[1, 2]) / K[1, 1],
        ],
        "fov_rad": 2 * math.atan(height / 2 / K[1, 1]),
        "color": camera_color(index),
    }
    if with_thumbnail:
        picture = io.BytesIO()
        whole = thumbnail(view)
        whole.resize(
            (whole.width, max(1, round(whole.width * height / width))), Image.Resampling.BICUBIC
        ).save(picture, "JPEG", quality=80)
        told["picture"] = f"data:image/jpeg;base64,{base64.b64encode(picture.getvalue()).decode()}"
    return told


def _fill(header: dict[str, Any], blob: bytes) -> str:
    """The document around a header and a blob of points."""
    web = files("g2vlm.export.page") / "web"
    script = "\n".join((web / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    packed = gzip.compress(blob, compresslevel=6, mtime=0)
    # A name of a photo may hold anything: "<" must not end the element that the header stands in.
    told = json.dumps(header, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
    contents = {
        "TITLE": html.escape(f"g2vlm: {header['title']}"),
        "STYLE": (web / "page.css").read_text(encoding="utf-8"),
        "HEADER": told,
        "POINTS": base64.b64encode(packed).decode(),
        "SCRIPT": script,
    }
    page = (web / "page.html").read_text(encoding="utf-8")
    # In one pass, so that a photo named like a place is not taken for one.
    return re.sub(f"@({'|'.join(contents)})@", lambda found: contents[found[1]], page)
