"""`g2vlm assemble`: public towers into a checkpoint with fresh geometry, to train from."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import tyro

from g2vlm.cli.shared.terminal import reserved_stdout, say, write_json
from g2vlm.errors import OutputError
from g2vlm.model.config import EncoderWindows


class StoredType(Enum):
    """Type of the weights on disk."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Put DINOv2 with registers and Qwen2-VL into a checkpoint, where stage 1 of the training begins.

    Both are folders on this disk in their published layouts. The geometric expert, the bridge and the
    geometry heads are drawn, so that the checkpoint has yet to be trained before it reconstructs anything.
    """

    dino: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder of facebook/dinov2-with-registers-large."""
    qwen: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder of Qwen/Qwen2-VL-2B-Instruct, with its tokenizer."""
    folder: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Where to write the checkpoint; must not hold one yet."""
    windows: EncoderWindows = EncoderWindows.PER_VIEW
    """Attention windows of the geometric encoder: per_view, or released, which drifts across views."""
    dtype: StoredType = StoredType.FLOAT32
    """Type of the weights on disk."""
    seed: int = 0
    """Seed of what is drawn."""
    json: bool = False
    """Print one JSON object to stdout and nothing else there."""


def run(options: Options) -> int:
    """Assemble, say what came from where."""
    import torch

    from g2vlm.checkpoints.files import WEIGHTS
    from g2vlm.checkpoints.towers import assemble

    if (options.folder / WEIGHTS).exists():
        raise OutputError(
            f"Expected no checkpoint in {options.folder} yet, found one: name another --folder."
        )
    with reserved_stdout() as out:
        dtype = {StoredType.FLOAT32: torch.float32, StoredType.BFLOAT16: torch.bfloat16}[options.dtype]
        done = assemble(
            options.dino,
            options.qwen,
            options.folder,
            windows=options.windows,
            dtype=dtype,
            seed=options.seed,
        )
        if options.json:
            write_json(out, {"folder": str(done.folder), "taken": done.taken, "fresh": done.fresh})
        else:
            say(f"{done.taken} tensors from the towers, {done.fresh} drawn; train it before you use it:")
            say(f"g2vlm train released-stage1 --init_from {done.folder}")
            out.write(f"{done.folder}\n")
    return 0
