"""`g2vlm demo`: the whole way on the example images, with nothing but this installation."""

import shlex
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from g2vlm.checkpoints.hub import BUNDLED_NAME, has_bundled
from g2vlm.cli.main import run_command
from g2vlm.cli.shared.scene_options import EXAMPLES_IN_PACKAGE
from g2vlm.cli.shared.streams import ResultStream
from g2vlm.cli.shared.terminal import say
from g2vlm.errors import InputError
from g2vlm.scene.writing import check_folder

RANDOM_WEIGHTS = (
    "NOTE: this installation carries no trained checkpoint, so the demo runs on RANDOM WEIGHTS. Every step "
    "is the real one, but the shapes and the answer mean nothing. For meaningful ones:  g2vlm download"
)

QUESTION = (
    "To face the red floor lamp, would the camera of view 2 turn left or right? A. left B. right "
    "Answer with the letter. Think step by step."
)
"""Only the last example photo shows the lamp: no single one is enough.

It has a form in which the bundled model has learned to answer.
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Reconstruct the example images and answer a question about them, on the CPU and without the network.

    Uses the small checkpoint that comes with the package; where there is none, random weights, and says so.
    """

    folder: Path = Path("outputs/demo")
    """Where to put the scene."""
    question: str = QUESTION
    """What to ask."""


def run(options: Options) -> int:
    """Reconstruct, ask, say where the files are."""
    if not EXAMPLES_IN_PACKAGE.is_dir():
        raise InputError(f"Expected example images in {EXAMPLES_IN_PACKAGE}, found none: reinstall g2vlm.")
    check_folder(options.folder)
    points, everything = options.folder / "scene.ply", options.folder / "scene.npz"
    with ExitStack() as stack:
        if has_bundled():
            checkpoint = BUNDLED_NAME
        else:
            say(RANDOM_WEIGHTS)
            checkpoint = _random_weights(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        common = ["--data_path", str(EXAMPLES_IN_PACKAGE), "--ckpt", checkpoint, "--device", "cpu"]
        question = ["--question", options.question]
        code = _show_and_run(["recon", *common, "--save_path", str(points)])
        code = code or _show_and_run(["chat", *common, *question, "--save_path", str(everything)])
    if code:
        return code
    ResultStream().write(
        f"\nfiles:\n  {points}  coloured points, for MeshLab, CloudCompare, Blender\n"
        f"  {everything}  points, depth, poses, intrinsics, confidence, for numpy\n"
    )
    if not has_bundled():
        say(f"\n{RANDOM_WEIGHTS}")
    return 0


def _show_and_run(words: list[str]) -> int:
    ResultStream().write(f"\n$ g2vlm {shlex.join(words)}\n")
    return run_command(words[0], words[1:])


def _random_weights(folder: Path) -> str:
    from g2vlm.checkpoints.random import random_checkpoint

    return str(random_checkpoint(folder / "random-weights"))
