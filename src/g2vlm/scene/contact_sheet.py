"""A scene at a glance: photos, depth and confidence of its views in one picture."""

import base64
import html
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from g2vlm.scene.coloring import color_confidence, color_depth, depth_range_of
from g2vlm.scene.formats import FORMATS, no_progress
from g2vlm.scene.save_options import SaveOptions

if TYPE_CHECKING:
    from g2vlm.scene.scene import Scene

_MOST_VIEWS = 8
_TILE_PX = 160
_GAP_PX = 4
_NOTEBOOK_POINTS = 80_000


def contact_sheet(scene: "Scene") -> Image.Image:
    """Photos, depth (red near, blue far) and confidence (violet 0, yellow 1), one column for each view.

    Args:
        scene: of more than eight views, eight evenly spread ones are shown.
    """
    chosen = np.unique(np.linspace(0, len(scene) - 1, min(len(scene), _MOST_VIEWS)).round().astype(int))
    views = [scene.views[index] for index in chosen]
    near, far = depth_range_of(scene.views)
    size = (_TILE_PX, max(1, round(_TILE_PX * views[0].height / views[0].width)))
    width, height = (side + _GAP_PX for side in size)
    sheet = Image.new("RGB", (width * len(views) - _GAP_PX, 3 * height - _GAP_PX), "white")
    for column, view in enumerate(views):
        depth = color_depth(view.depth, view.valid, near, far)
        for row, pixels in enumerate((view.rgb, depth, color_confidence(view))):
            sheet.paste(Image.fromarray(pixels).resize(size), (column * width, row * height))
    return sheet


def scene_html(scene: "Scene") -> str:
    """What notebooks show: the scene to turn and measure, and below it the contact sheet with a line of text.

    The first is the page that `Scene.save` writes to `.html`, with fewer points; it stands in a frame of its
    own. Notebooks that are not trusted leave frames out, and a scene without points has no page.
    """
    data = io.BytesIO()
    contact_sheet(scene).save(data, "PNG")
    picture = base64.b64encode(data.getvalue()).decode()
    text = html.escape(f"{scene!r}; {scene.scale.unit}: {scene.scale.source}")
    image = f'<img alt="photos, depth, confidence" src="data:image/png;base64,{picture}"/>'
    page = _page_frame(scene) if "html" in FORMATS and scene.num_points else ""
    return f"{page}<figure>{image}<figcaption>{text}</figcaption></figure>"


def _page_frame(scene: "Scene") -> str:
    with tempfile.TemporaryDirectory(prefix="g2vlm-") as folder:
        path = Path(folder) / "scene.html"
        FORMATS["html"].write(scene, path, SaveOptions(max_points=_NOTEBOOK_POINTS), no_progress)
        page = html.escape(path.read_text(encoding="utf-8"))
    return (
        f'<iframe title="the scene in 3-D" sandbox="allow-scripts allow-downloads" srcdoc="{page}" '
        'style="width: 100%; height: 480px; border: 0; border-radius: 8px"></iframe>'
    )
