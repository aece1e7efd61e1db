"""Training states on disk: everything that a resumed run needs, written so that no crash leaves half of one.

A state is a folder of torch.distributed.checkpoint, written by one process or by many and read by any number.
It appears under its name in one step, after all of it has reached the disk.
"""

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from g2vlm.errors import CheckpointError
from g2vlm.scene.writing import flush_path

STATES = "states"
_MARK = "complete.json"


@dataclass(frozen=True)
class TrainingProgress:
    """How far a run is."""

    step: int
    """Optimisation steps done; the data position follows from it."""
    seconds: float
    """Time spent training, over all slices."""


def state_folder(run: Path, step: int) -> Path:
    """Where the state after `step` steps lies."""
    return run / STATES / f"step-{step:08d}"


def all_states(run: Path) -> list[Path]:
    """Folders of all states of a run, oldest first, whole or damaged."""
    return sorted(folder for folder in run.glob(f"{STATES}/step-*") if (folder / _MARK).is_file())


def whole_states(run: Path) -> list[Path]:
    """Those of `all_states` whose files are there in full."""
    return [folder for folder in all_states(run) if _is_whole(folder)]


def newest_state(run: Path) -> Path | None:
    """The newest whole state of a run, or None."""
    whole = whole_states(run)
    return whole[-1] if whole else None


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / _MARK).read_text(encoding="utf-8"))["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def save_state(run: Path, progress: TrainingProgress, content: dict[str, Any], *, keep: int) -> Path:
    """Write a state and prune older ones.

    Args:
        run: folder of the run.
        progress: how far it is.
        content: tensors in dictionaries; sharded ones are written by all processes together.
        keep: how many of the newest states stay.
    """
    from torch.distributed.checkpoint.state_dict_saver import save

    final = state_folder(run, progress.step)
    temporary = final.with_name(f".{final.name}.tmp")
    if _is_first():
        # Whatever a process left that was killed while it wrote.
        for old in run.glob(f"{STATES}/.*"):
            shutil.rmtree(old, ignore_errors=True)
        temporary.mkdir(parents=True)
    _wait_for_all()
    with _quiet_alone():
        save(content, checkpoint_id=str(temporary), no_dist=not dist.is_initialized())
    if _is_first():
        _seal(temporary, progress)
        _replace(temporary, final)
        _prune(run, keep)
    _wait_for_all()
    return final


def _seal(folder: Path, progress: TrainingProgress) -> None:
    """Say that a state is complete, once every file of it is on the disk."""
    files = [path for path in folder.iterdir() if path.is_file()]
    for path in files:
        flush_path(path)
    facts = {
        "step": progress.step,
        "seconds": progress.seconds,
        "files": {path.name: path.stat().st_size for path in files},
    }
    (folder / _MARK).write_text(json.dumps(facts) + "\n", encoding="utf-8")
    flush_path(folder / _MARK)
    flush_path(folder)


def _replace(temporary: Path, final: Path) -> None:
    if final.exists():
        # Folders cannot be exchanged in one step: the old state stays whole under a name that is swept later.
        os.replace(final, final.with_name(f".{final.name}.old"))
    os.replace(temporary, final)
    flush_path(final.parent)
    shutil.rmtree(final.with_name(f".{final.name}.old"), ignore_errors=True)


def read_progress(folder: Path) -> TrainingProgress:
    """How far the run of a state was."""
    facts = json.loads((folder / _MARK).read_text(encoding="utf-8"))
    return TrainingProgress(int(facts["step"]), float(facts["seconds"]))


def load_state(folder: Path, content: dict[str, Any]) -> None:
    """Read a state into the tensors of `content`, which are overwritten.

    Args:
        folder: a complete state, written by any number of processes.
        content: the tensors of the present run under the names they were saved by.

    Raises:
        CheckpointError: the state holds other weights than this run.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_loader import load

    try:
        with _quiet_alone():
            load(content, checkpoint_id=str(folder), no_dist=not dist.is_initialized())
    except (CheckpointException, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"Expected a state of this recipe in {folder}, got one that does not fit ({_first_line(error)}): "
            "train in another --folder, or resume with the version of g2vlm that wrote it."
        ) from error


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


@contextmanager
def _quiet_alone() -> Iterator[None]:
    """Within it, torch does not warn that there is only one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        yield


def random_state() -> dict[str, Any]:
    """State of the random generator that the network itself might use."""
    return {"cpu": torch.get_rng_state()}


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` gave."""
    torch.set_rng_state(state["cpu"].cpu())


def _prune(run: Path, keep: int) -> None:
    for old in all_states(run)[:-keep]:
        # First out of sight: half a state must never look like a whole one.
        hidden = old.with_name(f".{old.name}.old")
        os.replace(old, hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def _is_first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def _wait_for_all() -> None:
    if dist.is_initialized():
        dist.barrier()
