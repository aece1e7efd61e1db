"""`g2vlm metric`: a stored scene in metres, or with known cameras."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from g2vlm.cli.shared.known_options import (
    KNOWN_FIELDS,
    MASK_FIELDS,
    KnownOptions,
    photo_files,
    tell_calibration,
)
from g2vlm.cli.shared.scene_options import require_writable, write_scene
from g2vlm.cli.shared.terminal import bytes_of, format_bytes, reserved_stdout, say, write_json
from g2vlm.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Options(KnownOptions):
    """Bring a scene file together with known lengths, cameras or depth, and write it anew.

    Of several sources of the metre the most trusted is used, the others are compared with it: known
    distances, known baselines, depth, poses in metres, GPS. Without any, only masks are applied.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "input and output": ("scene", "target", "json"),
        "what is known": KNOWN_FIELDS,
        "what to leave out": MASK_FIELDS,
    }
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "g2vlm metric room.npz m.npz --known_distance 0,90,200,0,220,210,0.9",
        "g2vlm metric room.npz m.npz --poses truth.txt --intrinsics 525,525,320,240",
    )

    scene: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SCENE")]
    """Scene file (.npz), from g2vlm recon --save_path room.npz."""
    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """What to write: .npz, or any format of g2vlm export."""
    json: bool = False
    """Print one JSON object to stdout and nothing else there."""


def run(options: Options) -> int:
    """Read the scene, apply what is known, write it, report."""
    from g2vlm.scene.storage import read_npz

    with reserved_stdout() as out:
        target = require_writable(options.target)
        if not (options.knows_anything or options.masks_anything):
            raise InputError(
                "Expected something known about the scene, such as --known_distance, --poses, --depth, "
                "--intrinsics or --masks: see g2vlm metric --help."
            )
        scene = options.mask_scene(read_npz(options.scene))
        report = {"scale": scene.scale.kind.value, "scale_source": scene.scale.source}
        if options.knows_anything:
            calibration = scene.calibrated(options.known_things(photo_files(scene)))
            tell_calibration(calibration)
            scene, report = calibration.scene, calibration.summary()
        write_scene(scene, target)
        out.kept(target.path)
        if options.json:
            size = bytes_of(target.path)
            files = [{"kind": target.format.kind, "path": str(target.path), "bytes": size}]
            write_json(out, {**report, "points": scene.num_points, "files": files})
        else:
            say(f"scale {scene.scale}")
            out.write(f"{target.path} ({format_bytes(bytes_of(target.path))})\n")
    return 0
