"""Training states on disk: everything that a resumed run needs, written so that a crash never leaves half.

One process writes a single `state.pt`; several write shards through torch.distributed.checkpoint, which any
number of processes can read again.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from g2vlm.errors import CheckpointError

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


def newest_state(run: Path) -> Path | None:
    """The newest complete state of a run, or None."""
    folders = sorted(run.glob(f"{STATES}/step-*"))
    complete = [folder for folder in folders if (folder / _MARK).is_file()]
    return complete[-1] if complete else None


def save_state(run: Path, progress: TrainingProgress, content: dict[str, Any], *, keep: int) -> Path:
    """Write a state and prune older ones.

    Args:
        run: folder of the run.
        progress: how far it is.
        content: state dictionaries by name.
        keep: how many of the newest states stay.
    """
    final = state_folder(run, progress.step)
    temporary = final.with_name(f".{final.name}.tmp")
    distributed = dist.is_initialized() and dist.get_world_size() > 1
    if _is_first():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    if distributed:
        from torch.distributed.checkpoint.state_dict_saver import save

        dist.barrier()
        save(content, checkpoint_id=str(temporary))
        dist.barrier()
    else:
        torch.save(content, temporary / "state.pt")
    if _is_first():
        facts = {"step": progress.step, "seconds": progress.seconds, "sharded": distributed}
        (temporary / _MARK).write_text(json.dumps(facts) + "\n", encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        _prune(run, keep)
    if distributed:
        dist.barrier()
    return final


def read_progress(folder: Path) -> TrainingProgress:
    """How far the run of a state was."""
    facts = json.loads((folder / _MARK).read_text(encoding="utf-8"))
    return TrainingProgress(int(facts["step"]), float(facts["seconds"]))


def load_state(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Read a state.

    Args:
        folder: a complete state.
        content: state dictionaries of the present run, whose tensors are overwritten where the state is
            sharded.

    Returns:
        The state dictionaries that were saved.

    Raises:
        CheckpointError: the state was written by several processes and this is one, or the other way round.
    """
    sharded = bool(json.loads((folder / _MARK).read_text(encoding="utf-8"))["sharded"])
    distributed = dist.is_initialized() and dist.get_world_size() > 1
    if sharded != distributed:
        wrote, runs = ("several processes", "one") if sharded else ("one process", "several")
        raise CheckpointError(
            f"{folder} was written by {wrote}, this run is {runs}: resume as before, or start a new run "
            "with --init-from its exported model."
        )
    if distributed:
        from torch.distributed.checkpoint.state_dict_loader import load

        load(content, checkpoint_id=str(folder))
        return content
    loaded: dict[str, Any] = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    return loaded


def random_state() -> dict[str, Any]:
    """State of the random generators that the network itself might use."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` gave."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def _prune(run: Path, keep: int) -> None:
    for old in sorted(run.glob(f"{STATES}/step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def _is_first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def weights_of(network: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that are trained, by name."""
    return {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
