"""A run that starts from public towers: put together once, in the folder of the run."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from g2vlm.checkpoints.files import WEIGHTS
from g2vlm.checkpoints.towers import assemble
from g2vlm.errors import InputError
from g2vlm.scene.writing import atomic_path

START = "start"
"""Folder inside of that of the run."""
_MARK = "towers.json"
_NAMES = ("dinov2", "qwen2vl")
_FORM = "dinov2=FOLDER,qwen2vl=FOLDER"


@dataclass(frozen=True)
class Towers:
    """Folders of the public models that a checkpoint is put together from."""

    dinov2: str
    """In the layout of facebook/dinov2-with-registers-large."""
    qwen2vl: str
    """In the layout of Qwen/Qwen2-VL-2B-Instruct."""

    @classmethod
    def parse(cls, text: str) -> "Towers | None":
        """Read `dinov2=FOLDER,qwen2vl=FOLDER`, in any order; None for a text that names no towers.

        Raises:
            InputError: one of the towers is missing, named twice, or another thing is named.
        """
        if not text.startswith(tuple(f"{name}=" for name in _NAMES)):
            return None
        # A folder may hold commas; only one before the name of a tower parts them.
        for name in _NAMES:
            text = text.replace(f",{name}=", f"\0{name}=")
        pairs = [part.partition("=")[::2] for part in text.split("\0")]
        folders = {name: str(Path(folder).expanduser().absolute()) for name, folder in pairs if folder}
        if sorted(name for name, _ in pairs) != sorted(_NAMES) or len(folders) != len(_NAMES):
            raise InputError(f"Expected both towers once, as {_FORM}, got {text.replace(chr(0), ',')!r}.")
        return cls(**folders)


def assembled_start(towers: Towers, run: Path, seed: int) -> Path:
    """The checkpoint of two towers in the folder of a run, written where it is not there yet.

    Args:
        towers: what it is made of; fresh geometry is drawn.
        run: folder of the run.
        seed: of what is drawn.

    Raises:
        InputError: the run was started from others.
        CheckpointError: a folder is no such tower; see `assemble`.
    """
    folder = run / START
    made_of = {**asdict(towers), "seed": seed}
    mark = folder / _MARK
    if mark.is_file() and (folder / WEIGHTS).is_file():
        before = json.loads(mark.read_text(encoding="utf-8"))
        if before != made_of:
            raise InputError(
                f"Expected the towers and seed that {run} was started from, {before}, got {made_of}: name "
                "another --folder."
            )
        return folder
    assemble(Path(towers.dinov2), Path(towers.qwen2vl), folder, seed=seed)
    # Written last: a start without it was interrupted, and is made anew.
    with atomic_path(mark) as temporary:
        temporary.write_text(json.dumps(made_of), encoding="utf-8")
    return folder
