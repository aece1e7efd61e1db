"""`g2vlm measure`: lengths read off a stored scene."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import tyro

from g2vlm.cli.shared.known_options import numbers, photo_files, split_words, view_number
from g2vlm.cli.shared.terminal import reserved_stdout, write_json
from g2vlm.errors import InputError
from g2vlm.scene.measuring.boxes import BoxAxes

if TYPE_CHECKING:
    from g2vlm.inputs.known.photo_facts import PhotoFile
    from g2vlm.scene.scene import Scene

_PIXEL = tyro.conf.arg(metavar="VIEW,u,v")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Read lengths off a scene file, each with its standard deviation.

    Pixels are those of the original photos, u to the right and v downwards from 0; VIEW is a number from 0 or
    a file name. Every option may be repeated.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "input and output": ("scene", "json"),
        "what to measure": ("distance", "depth", "height", "area", "box", "axes", "points", "floor"),
    }
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "g2vlm measure room.npz --distance 0,90,200,1,220,210",
        "g2vlm measure room.npz --box 0,90,100,220,210 --height 0,90,200 --json",
    )

    scene: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SCENE")]
    """Scene file (.npz), from g2vlm recon --save_path room.npz."""
    distance: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="VIEW,u,v,VIEW,u,v")
    ] = ()
    """Distance between two pixels' points."""
    depth: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, _PIXEL] = ()
    """Distance of a pixel's point from its camera, along the viewing axis."""
    height: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, _PIXEL] = ()
    """Height of a pixel's point above the floor, which is found by itself."""
    area: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, _PIXEL] = ()
    """Area of the flat surface around a pixel, as far as that view shows it."""
    box: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="VIEW,l,t,r,b")] = ()
    """Sides of the box around what a rectangle of pixels (left, top, right, bottom) shows."""
    axes: BoxAxes = BoxAxes.UPRIGHT
    """Of boxes: upright on the floor and turned to the smallest, or along those of camera or world."""
    points: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="x,y,z,x,y,z")] = ()
    """Distance between two points in world coordinates."""
    floor: bool = False
    """Say where the floor is."""
    json: bool = False
    """Print one JSON object to stdout and nothing else there."""


def run(options: Options) -> int:
    """Read the scene, measure, print."""
    from g2vlm.scene.storage import read_npz

    with reserved_stdout() as out:
        scene = read_npz(options.scene)
        results = list(_results(options, scene))
        if not results:
            raise InputError("Expected something to measure, such as --distance: see g2vlm measure --help.")
        if options.json:
            scale = scene.scale
            write_json(
                out,
                {
                    "unit": scale.unit,
                    "scale": scale.kind.value,
                    "scale_source": scale.source,
                    "measurements": [result for _, result in results],
                },
            )
        else:
            for text, _ in results:
                out.write(text + "\n")
            out.write(f"scale {scene.scale}\n")
    return 0


def _results(options: Options, scene: "Scene") -> Sequence[tuple[str, dict[str, Any]]]:
    """A line and an object for JSON of everything asked for."""
    photos = photo_files(scene)
    kinds: list[tuple[str, tuple[str, ...], Callable[[str], tuple[str, dict[str, Any]]]]] = [
        ("distance", options.distance, lambda text: _length(_distance(scene, text, photos))),
        ("depth", options.depth, lambda text: _length(scene.measure_depth(*_pixel(text, photos)))),
        ("height", options.height, lambda text: _length(scene.measure_height(*_pixel(text, photos)))),
        ("area", options.area, lambda text: _length(scene.measure_area(*_pixel(text, photos)))),
        ("box", options.box, lambda text: _box(scene, text, photos, options.axes)),
        ("points", options.points, lambda text: _length(_points(scene, text))),
    ]
    found = []
    for kind, asked, measure in kinds:
        for text in asked:
            line, result = measure(text)
            found.append((f"{kind} {text}: {line}", {"kind": kind, "of": text, **result}))
    if options.floor:
        found.append(_floor(scene))
    return found


def _length(measured: Any) -> tuple[str, dict[str, Any]]:
    told = {"value": measured.value, "uncertainty": measured.uncertainty}
    if hasattr(measured, "confidence"):
        told["confidence"] = measured.confidence
    return str(measured), told


def _pixel(text: str, photos: Sequence["PhotoFile"]) -> tuple[int, tuple[float, float]]:
    words = split_words(text, 3, "VIEW,u,v")
    u, v = numbers(words[1:], text)
    return view_number(words[0], photos), (u, v)


def _distance(scene: "Scene", text: str, photos: Sequence["PhotoFile"]) -> Any:
    words = split_words(text, 6, "--distance VIEW,u,v,VIEW,u,v")
    (a, pixel_a), (b, pixel_b) = (_pixel(",".join(part), photos) for part in (words[:3], words[3:]))
    return scene.measure_distance(a, pixel_a, b, pixel_b)


def _points(scene: "Scene", text: str) -> Any:
    ends = np.array(numbers(split_words(text, 6, "--points x,y,z,x,y,z"), text))
    return scene.measure_points(ends[:3], ends[3:])


def _box(
    scene: "Scene", text: str, photos: Sequence["PhotoFile"], axes: BoxAxes
) -> tuple[str, dict[str, Any]]:
    words = split_words(text, 5, "--box VIEW,left,top,right,bottom")
    left, top, right, bottom = numbers(words[1:], text)
    box = scene.measure_box(view_number(words[0], photos), (left, top, right, bottom), axes=axes)
    return str(box), {
        "lengths": list(box.lengths),
        "uncertainties": list(box.uncertainties),
        "axes": axes.value,
        "centre": box.centre.tolist(),
        "R_world_box": box.R_world_box.tolist(),
        "points": box.num_points,
    }


def _floor(scene: "Scene") -> tuple[str, dict[str, Any]]:
    floor = scene.floor()
    if floor is None:
        return "floor: none found below the cameras", {"kind": "floor", "found": False}
    heights = [floor.height(view.T_world_camera[:3, 3].astype(np.float64)) for view in scene.views]
    line = (
        f"floor: {100 * floor.support:.0f} % of the points, cameras {min(heights):.4g} to {max(heights):.4g} "
        f"{scene.scale.unit} above it, normal {np.round(floor.up, 4).tolist()}"
    )
    told = {"up": floor.up.tolist(), "offset": floor.offset, "support": floor.support}
    return line, {"kind": "floor", "found": True, **told, "residual": floor.residual, "cameras": heights}
