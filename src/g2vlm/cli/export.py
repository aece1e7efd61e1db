"""`g2vlm export`: a scene file to the formats of other software."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from g2vlm.cli.shared.scene_options import require_writable, write_scene
from g2vlm.cli.shared.streams import ResultStream
from g2vlm.cli.shared.terminal import bytes_of, format_bytes, progress_bar, reserved_stdout, say, write_json
from g2vlm.errors import InputError
from g2vlm.scene.formats import Target
from g2vlm.scene.save_options import SaveOptions

if TYPE_CHECKING:
    from g2vlm.export.colmap.refine import Refinement
    from g2vlm.scene.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Options(SaveOptions):
    """Write a scene file in the formats of other software, several at a time.

    A target is a file whose ending says the format (.glb, .html, .ply, .obj, .usdz, .rrd, .tum, .kitti,
    .npz), a folder whose name says it (colmap, nerfstudio, depth, normals, previews), or KIND:PATH with one
    of ply, glb, html, mesh, tsdf, gaussians, colmap, nerfstudio, depth, normals, previews, tum, kitti, usd,
    rerun, npz. A folder whose path ends in .zip is packed. docs/outputs.md says what each holds.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "input and output": ("scene", "targets", "json"),
        "points": ("max_points", "min_confidence", "max_depth_edge", "anchor_first"),
        "photos and cameras": ("images", "photos", "shared_camera", "frusta"),
        "depth and meshes": ("maps", "upsampling", "mesh_edge", "voxel"),
        "expert": ("refine", "text"),
    }
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "g2vlm export room.npz room.glb",
        "g2vlm export room.npz out/colmap out/depth mesh:room.ply",
    )

    scene: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SCENE")]
    """Scene file (.npz), from g2vlm recon --save_path room.npz."""
    targets: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """What to write."""
    anchor_first: bool = False
    """Make the first camera the origin and axes of the world."""
    min_confidence: Annotated[float | None, tyro.conf.arg(metavar="0..1")] = None
    """Leave out points of lower confidence."""
    max_depth_edge: Annotated[float | None, tyro.conf.arg(metavar="NUMBER")] = None
    """Leave out pixels whose 3x3 window spans more than this fraction of their depth; 0.03 removes the points
    that float between near and far surfaces."""
    refine: bool = False
    """Refine cameras and depth by bundle adjustment over corners matched between the original photos (needs
    pycolmap); kept only if it explains other corners better."""
    json: bool = False
    """Print one JSON object to stdout and nothing else there."""

    def finish(self, scene: "Scene") -> "Scene":
        """Filter and re-anchor as asked."""
        if self.anchor_first:
            scene = scene.anchored()
        return scene.filtered(min_confidence=self.min_confidence, max_depth_edge=self.max_depth_edge)


def run(options: Options) -> int:
    """Read the scene, write every target, report."""
    from g2vlm.scene.storage import read_npz

    with reserved_stdout() as out:
        targets = _targets(options.targets)
        scene = read_npz(options.scene)
        refinement = _refine(scene, options.photos) if options.refine else None
        scene = options.finish(scene if refinement is None else refinement.scene)
        for target in targets:
            _write(scene, target, options, refinement)
            out.kept(target.path)
        _report(out, scene, targets, refinement, as_json=options.json)
    return 0


def _targets(words: Sequence[str]) -> list[Target]:
    """Targets that can be written, checked before anything is.

    Raises:
        InputError: None, or one path twice.
        OutputError: An unknown format, or a place that cannot be written.
    """
    if not words:
        raise InputError("Expected something to write after the scene, such as room.glb or colmap:room.")
    targets = [require_writable(word) for word in words]
    paths = [target.path.absolute() for target in targets]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise InputError(f"Expected different places to write, got {twice} twice.")
    return targets


def _refine(scene: "Scene", photos: Path | None) -> "Refinement":
    from g2vlm.export.colmap.refine import refine_scene
    from g2vlm.scene.formats import no_progress

    with progress_bar("matching") as on_progress:
        refinement = refine_scene(scene, photos, on_progress or no_progress)
    say(str(refinement))
    return refinement


def _write(scene: "Scene", target: Target, options: Options, refinement: "Refinement | None") -> None:
    if target.format.kind == "colmap" and refinement is not None and refinement.measured is not None:
        target = target.with_writer(refinement.write_colmap)
    write_scene(scene, target, options)


def _report(
    out: ResultStream,
    scene: "Scene",
    targets: Sequence[Target],
    refinement: "Refinement | None",
    *,
    as_json: bool,
) -> None:
    if not as_json:
        for target in targets:
            size = format_bytes(bytes_of(target.path))
            out.write(f"{target.path} ({size}): {target.format.summary}\n")
        return
    files = [
        {"kind": target.format.kind, "path": str(target.path), "bytes": bytes_of(target.path)}
        for target in targets
    ]
    result: dict[str, Any] = {"views": len(scene), "points": scene.num_points, "files": files}
    if refinement is not None:
        result["refinement"] = refinement.summary()
    write_json(out, result)
