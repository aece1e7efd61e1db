"""`g2vlm compare`: two scenes, or two checkpoints on the same photos, side by side."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from g2vlm.cli.shared.scene_options import SceneOptions, require_writable, write_scene
from g2vlm.cli.shared.terminal import reserved_stdout, write_json
from g2vlm.errors import InputError

if TYPE_CHECKING:
    from g2vlm.scene.scene import Scene

SCENE_FILE = ".npz"


@dataclass(frozen=True, kw_only=True)
class Options(SceneOptions):
    """Compare two scenes of the same photos: cameras, depth and points, after the best similarity.

    Each side is a scene file (.npz), or a checkpoint that reconstructs the photos of --data_path. Neither
    counts as true; g2vlm eval measures against the truth.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "input": ("first", "second", "data_path", "max_views", "frames", "frame_count", "frame_rate"),
        "output": ("view", "overlay", "port", "save_path", "json"),
        "model": ("ckpt", "download", "device", "dtype"),
        "expert": ("fit", "view_attention", "quantization", "compiled"),
    }
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "g2vlm compare room.npz room2.npz",
        "g2vlm compare g2vlm-tiny my-model --data_path photos/room --view",
    )

    first: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """Scene file, or a checkpoint; gives frame and unit."""
    second: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """Scene file, or a checkpoint."""
    view: bool = False
    """Show both in the browser, B to the right of A (needs viser)."""
    overlay: bool = False
    """Show B where A is, instead of beside it."""
    port: int = 8080
    """Port of the page; the next free one if it is taken."""
    save_path: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Write both as one scene; the ending chooses the format, or KIND:PATH."""


def run(options: Options) -> int:
    """Read or reconstruct both, print the table, show them if asked."""
    from g2vlm.evaluation.scene_difference import compare_scenes

    with reserved_stdout() as out:
        if options.ckpt is not None:
            raise InputError("Expected checkpoints as A and B, not by --ckpt.")
        target = None if options.save_path is None else require_writable(options.save_path)
        if options.view:
            from g2vlm.viewer.serving import require_viser

            require_viser()
        first, second = (_scene(options, word) for word in (options.first, options.second))
        difference = compare_scenes(first, second)
        if options.json:
            write_json(out, difference.summary())
        else:
            out.write(f"{difference.table()}\n")
        if target is not None:
            write_scene(difference.side_by_side(overlaid=options.overlay), target)
            out.kept(target.path)
        if options.view:
            _show(options, difference.side_by_side(overlaid=options.overlay))
    return 0


def _scene(options: Options, word: str) -> "Scene":
    """The scene that a word stands for."""
    if Path(word).suffix.lower() == SCENE_FILE:
        from g2vlm.scene.storage import read_npz

        return read_npz(word)
    own = replace(options, ckpt=word)
    photos = own.photos()
    return own.load_model().reconstruct(photos, fit=options.fit)


def _show(options: Options, scene: "Scene") -> None:
    from g2vlm.cli.view import serve
    from g2vlm.viewer.points import ShownPoints
    from g2vlm.viewer.serving import Viewer

    serve(Viewer(ShownPoints.of(scene), port=options.port), open_browser=True)
