"""Options that reconstruction and chat share, and what they stand for."""

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from g2vlm.cli.shared.terminal import leave_to_download, progress_bar, say
from g2vlm.errors import InputError
from g2vlm.inputs.geometric import Fit
from g2vlm.inputs.photos import PhotoSet, load_photos
from g2vlm.inputs.video import FrameChoice, FrameChoiceKind
from g2vlm.model.config import ViewAttention
from g2vlm.model.quantization import Quantization

if TYPE_CHECKING:
    from g2vlm.pipeline import Model
    from g2vlm.scene.formats import Target
    from g2vlm.scene.save_options import SaveOptions
    from g2vlm.scene.scene import Scene

EXAMPLES_HERE = Path("examples/recon_images")
EXAMPLES_IN_PACKAGE = Path(__file__).parents[2] / "examples" / "recon_images"


class Compiled(Enum):
    """Whether answers are written by compiled passes."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"

    @property
    def wish(self) -> bool | None:
        """As `load` takes it."""
        return {Compiled.AUTO: None, Compiled.ON: True, Compiled.OFF: False}[self]


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """What to look at and what to look at it with."""

    data_path: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Folder of images, one image, a pattern in quotes, or a video. Without it: examples/recon_images if that
    exists here, else the example images of the package."""
    ckpt: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Checkpoint: a folder, a hub id, or g2vlm-tiny. Without it: the released one if it is in the cache, or
    may be downloaded, else the bundled one."""
    download: bool = False
    """Fetch a hub's checkpoint that is not in the cache (the released one has 18 GB). Without it: asked at a
    terminal, refused elsewhere."""
    device: str = "auto"
    """auto (cuda if there is one, else cpu), cpu, cuda, cuda:1, mps."""
    dtype: str = "auto"
    """auto, bfloat16 or float32."""
    max_views: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Use at most this many views, evenly spread."""
    view_attention: Annotated[ViewAttention | None, tyro.conf.arg(metavar="{global,causal}")] = None
    """global: every view sees every view, as released; causal: each sees the earlier ones, as in training.
    Without it: what the checkpoint says."""
    quantization: Quantization = Quantization.NONE
    """packed, int8 or int4: store the language side in fewer bits, and answers come faster. packed loses
    nothing, and is for a CPU with AVX-512 VBMI2 and a C compiler; int4 answers are less exact. The geometric
    side keeps its weights."""
    compiled: Compiled = Compiled.AUTO
    """Write answers by compiled passes, which is faster: on a CPU in C, which needs a C compiler, on a CUDA
    GPU as one graph, whose first answer takes a while longer. auto: on a CPU that can, nowhere else."""
    tf32: bool = False
    """On a CUDA GPU: the float32 of the geometry heads through TF32, ten bits of mantissa; faster, less
    exact."""
    fit: Fit = Fit.STRETCH
    """stretch: bring every view to the shape of the first, as released; pad: keep the aspect of each."""
    frames: FrameChoiceKind = FrameChoiceKind.COUNT
    """Which frames of a video: a count evenly spread, a rate per second, or by how far the camera moved."""
    frame_count: int = FrameChoice.count
    """How many frames with --frames count or motion."""
    frame_rate: float = FrameChoice.rate_hz
    """Frames per second with --frames rate."""
    json: bool = False
    """Print one JSON object to stdout and nothing else there."""

    def photos(self, *, asking: bool = False) -> PhotoSet:
        """The photos, read before a model is loaded: unusable ones are told at once.

        Args:
            asking: Whether questions about them follow.

        Raises:
            InputError: Nothing usable is there.
        """
        source = self.source()
        say(f"reading {source}")
        from g2vlm.inference.photo_sizes import expected_reduction

        keep = expected_reduction(self.ckpt, self.fit, asking=asking)
        with progress_bar("reading") as on_progress:
            return load_photos(
                source,
                max_views=self.max_views,
                frames=self.frame_choice(),
                keep=keep,
                on_progress=on_progress,
            )

    def source(self) -> str:
        """Where the photos come from, defaults included; checked before a model is loaded.

        Raises:
            InputError: Nothing is there, or no path was given and there are no example images.
        """
        if self.data_path is not None:
            if not Path(self.data_path).expanduser().exists():
                load_photos(self.data_path, max_views=1)  # a pattern that matches, or an error that says it
            return self.data_path
        for folder in (EXAMPLES_HERE, EXAMPLES_IN_PACKAGE):
            if folder.is_dir():
                return str(folder)
        raise InputError(
            "Expected --data_path, since this installation has no example images: name a folder."
        )

    def frame_choice(self) -> FrameChoice:
        """Which frames of a video to take."""
        return FrameChoice(kind=self.frames, count=self.frame_count, rate_hz=self.frame_rate)

    def load_model(self) -> "Model":
        """Find and load the checkpoint, telling the user which one it is.

        The device is checked first: a download of hours must not end in a wrong device name.
        """
        import g2vlm
        from g2vlm.checkpoints.hub import choose_checkpoint
        from g2vlm.inference.decoding import choose_decoding
        from g2vlm.model.precision import allow_tf32, choose_placement

        placement = choose_placement(self.device, self.dtype)
        if self.tf32:
            allow_tf32(placement.device)
        # Measured and compiled only for what was asked for by name; else when the first answer is wanted.
        if self.compiled is not Compiled.AUTO or self.quantization is not Quantization.NONE:
            choose_decoding(placement, self.compiled.wish, self.quantization)
        choice = choose_checkpoint(self.ckpt, may_download=leave_to_download(self.download))
        say(f"checkpoint: {choice}")
        if caveat := training_status(choice.folder):
            say(f"note: {caveat}")
        say(f"device: {placement.device}, {placement.precision.value}")
        with progress_bar("loading") as on_progress:
            return g2vlm.load(
                choice.folder,
                device=self.device,
                dtype=self.dtype,
                view_attention=self.view_attention,
                quantization=self.quantization,
                compiled=self.compiled.wish,
                on_progress=on_progress,
            )


def training_status(folder: Path) -> str | None:
    """What a checkpoint trained here says about itself in `TRAINING.json`; None where it says nothing."""
    record = folder / "TRAINING.json"
    if not record.is_file():
        return None
    try:
        status = json.loads(record.read_text(encoding="utf-8")).get("status")
    except (OSError, ValueError, AttributeError):
        # A record is for people; a damaged one is no reason to refuse the weights.
        return f"{record} cannot be read."
    return str(status) if status else None


def require_writable(path: Path | str) -> "Target":
    """Check, before any long work, that a scene can be written to `path` (or KIND:PATH).

    Raises:
        OutputError: Unknown format, or a place that cannot be written.
        MissingExtraError: The format needs an optional dependency.
    """
    import g2vlm.export  # noqa: F401  (registers its formats)
    from g2vlm.scene.formats import find_target

    target = find_target(path)
    target.check()
    return target


def write_scene(scene: "Scene", target: "Target", options: "SaveOptions | None" = None) -> None:
    """Write a scene, with a bar on a terminal.

    Raises:
        OutputError: Nothing to write, or the place cannot be written.
    """
    from g2vlm.scene.formats import no_progress
    from g2vlm.scene.save_options import SaveOptions

    with progress_bar(f"writing {target.format.kind}") as on_progress:
        target.write(scene, options or SaveOptions(), on_progress or no_progress)
