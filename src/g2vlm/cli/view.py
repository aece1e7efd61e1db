"""`g2vlm view`: scenes, photos and videos in the browser."""

import contextlib
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from g2vlm.cli.shared.scene_options import EXAMPLES_IN_PACKAGE, SceneOptions
from g2vlm.cli.shared.streams import ResultStream
from g2vlm.cli.shared.terminal import say, write_json
from g2vlm.errors import InputError
from g2vlm.viewer.limits import Limits

if TYPE_CHECKING:
    from g2vlm.pipeline import Model
    from g2vlm.viewer.points import ShownPoints
    from g2vlm.viewer.serving import Viewer

SCENE_FILE = ".npz"


@dataclass(frozen=True, kw_only=True)
class Options(SceneOptions, Limits):
    """Open scenes, photos or a video in the browser: look, measure, ask, export.

    With a scene file (.npz) it shows that; with photos or a video it reconstructs them first. Without either
    it is a web app: drop photos or a video on the page. It listens to this machine only; --host 0.0.0.0 lets
    others in, who then may use this machine's time and memory within the limits below.
    """

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "input": ("what", "data_path", "frames", "frame_count", "frame_rate", "max_views"),
        "page": ("host", "port", "open", "budget"),
        "model": ("ckpt", "download", "device", "dtype"),
        "limits of each browser": (
            "max_sessions",
            "max_files",
            "max_upload_mb",
            "max_duration_s",
            "idle_minutes",
        ),
        "expert": ("fit", "view_attention", "quantization", "compiled", "tf32", "json"),
    }
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "g2vlm view",
        "g2vlm view room.npz",
        "g2vlm view photos/room",
    )

    what: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="SCENE|FOLDER|VIDEO")] = None
    """Scene file, or photos or a video to reconstruct. Without it: an empty page that takes uploads."""
    max_views: Annotated[int, tyro.conf.arg(metavar="INT")] = Limits.max_views
    """Use at most this many views, evenly spread."""
    host: str = "127.0.0.1"
    """Address to listen on; the default is reached from this machine only."""
    port: int = 8080
    """Port to listen on; the next free one if it is taken."""
    open: bool = True
    """Open the page in this machine's browser."""
    budget: Annotated[int, tyro.conf.arg(metavar="POINTS")] = 1_000_000
    """Points that a browser draws at once, whatever a scene holds."""

    def limits(self) -> Limits:
        """Those of each browser."""
        return Limits(**{name: getattr(self, name) for name in Limits.__dataclass_fields__})


def run(options: Options) -> int:
    """Prepare what is shown, serve until interrupted."""
    viewer = start(options)
    out = ResultStream()
    if options.json:
        write_json(out, {"address": viewer.address})
    else:
        out.write(f"{viewer.address}\n")
    serve(viewer, open_browser=options.open)
    return 0


def serve(viewer: "Viewer", *, open_browser: bool) -> None:
    """Keep a viewer until the user ends it."""
    say(f"{viewer.address} until Ctrl+C")
    if open_browser:
        # A machine without a browser is no mistake: the address is printed.
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(viewer.address)
    try:
        viewer.wait()
    except KeyboardInterrupt:
        say("")
    finally:
        viewer.close()


def start(options: Options) -> "Viewer":
    """The viewer with what was asked for, serving.

    Raises:
        InputError: Nothing usable is there, or an address that cannot be listened on.
        MissingExtraError: viser is not installed.
    """
    from g2vlm.viewer.serving import Viewer, require_viser
    from g2vlm.viewer.studio import Studio

    require_viser()
    if options.budget < 1:
        raise InputError(f"Expected --budget of at least 1 point, got {options.budget}.")
    source = _source(options)
    examples = EXAMPLES_IN_PACKAGE if EXAMPLES_IN_PACKAGE.is_dir() else None
    given: ShownPoints | None = None
    studio: Studio | None = None
    perception: Any = None
    if source is not None and Path(source).suffix.lower() == SCENE_FILE:
        given = _read(source)
    else:
        studio = Studio(lambda on_progress: options.load_model(), options.limits(), examples, options.fit)
    if source is not None and studio is not None:
        model = studio.model()
        given, perception = _reconstruct(options, model)
    return Viewer(
        given,
        studio,
        perception=perception,
        host=options.host,
        port=options.port,
        limits=options.limits(),
        budget=options.budget,
    )


def _source(options: Options) -> str | None:
    if options.what is not None and options.data_path is not None:
        raise InputError("Expected one source, got two: leave out --data_path.")
    return options.what if options.what is not None else options.data_path


def _read(file: str) -> "ShownPoints":
    from g2vlm.scene.storage import read_npz
    from g2vlm.viewer.points import ShownPoints

    return ShownPoints.of(read_npz(file))


def _reconstruct(options: Options, model: "Model") -> tuple["ShownPoints", Any]:
    from dataclasses import replace

    from g2vlm.viewer.points import ShownPoints

    photos = replace(options, data_path=_source(options)).photos(asking=True)
    perception = model.perceive(photos, fit=options.fit)
    return ShownPoints.of(perception.scene), perception
