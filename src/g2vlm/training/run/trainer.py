"""The training loop: one for every recipe."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from g2vlm.errors import G2VLMError
from g2vlm.model.precision import Precision
from g2vlm.training.objective import BatchLoss, StepCounts, batch_loss
from g2vlm.training.recipes.recipe import FromCheckpoint, Recipe
from g2vlm.training.run.distributed import (
    Processes,
    any_process,
    on_first,
    reduce_gradients_,
    sum_over_processes,
)
from g2vlm.training.run.journal import Meter, RunLog
from g2vlm.training.run.learner import Learner
from g2vlm.training.run.lock import FolderLock
from g2vlm.training.run.record import copy_record, describe_run, settle_record
from g2vlm.training.run.setup import prepare_start, require_fitting_data, training_batches, validation_sources
from g2vlm.training.run.states import (
    TrainingProgress,
    all_states,
    load_state,
    newest_state,
    read_progress,
    save_state,
    whole_states,
)
from g2vlm.training.run.validation import validate
from g2vlm.training.run.watch import WatchedFrames
from g2vlm.training.sources.batches import TrainingBatch

MODEL_FOLDER, ADAPTER_FOLDER = "model", "adapter"
FAILED_BATCH = "failed_batch.pt"


class NonFiniteLossError(G2VLMError, ArithmeticError):
    """The loss or its gradient became infinite or NaN."""


class Ending(Enum):
    """Why a run returned."""

    COMPLETE = "complete"
    """All steps are done."""
    OUT_OF_TIME = "out of time"
    """The slice of time is used up; run again to continue."""
    INTERRUPTED = "interrupted"
    """Ctrl-C or a termination signal; run again to continue."""


@dataclass(frozen=True)
class Runtime:
    """How a run uses the machine; nothing here changes its outcome."""

    folder: Path
    """States, logs and the exported model; an unfinished run there is continued."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 1
    """Processes that make batches; 0 makes them between steps."""
    max_minutes: float | None = None
    """Save and return after so long; run again to continue."""
    save_minutes: float = 10.0
    """Save at least this often, besides every so many steps as the recipe says."""
    override: bool = False
    """Continue a run although the recipe, its data, its first weights or versions have changed."""
    store: Path | None = None
    """Where pictures of rooms that return are kept, shared between runs."""
    watch: Path | None = None
    """Real frames to measure at every validation, never learned from; see `run/watch.py`."""
    export_dtype: torch.dtype = torch.bfloat16
    """Number format of the exported model."""
    compiled: bool = False
    """Compile the layers: minutes at first for each new shape of batch, then about a third faster."""
    processes: Processes = field(default_factory=Processes)
    """This process among those that train together."""


class _Indices:
    """A sampler: micro-batch indices of one process from one step on."""

    def __init__(self, first_step: int, recipe: Recipe, processes: Processes) -> None:
        per_step = recipe.batching.accumulate
        self.indices = [
            step * per_step + micro
            for step in range(first_step, recipe.optimisation.steps)
            for micro in range(processes.rank, per_step, processes.count)
        ]

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def _set_up_worker(_: int) -> None:
    """Workers make batches one at a time; more threads would take them from the network."""
    torch.set_num_threads(1)
    # Signals reach the whole group (Ctrl-C, timeout); the trainer alone decides when to stop.
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.SIG_IGN)


@contextmanager
def _matrix_precision(name: str | None) -> Iterator[None]:
    """Let float32 matrix products round their factors, as torch calls it by name; None changes nothing."""
    before = torch.get_float32_matmul_precision()
    if name is not None:
        torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class Trainer:
    """Runs a recipe in a folder, from its newest state if there is one.

    Args:
        recipe: what to do.
        runtime: where and how.

    Raises:
        InputError: the recipe does not fit the network or the number of processes.
        CheckpointError: the checkpoint to start from is missing or does not fit.
    """

    def __init__(self, recipe: Recipe, runtime: Runtime) -> None:
        self.recipe, self.runtime = recipe, runtime
        folder, processes = runtime.folder, runtime.processes
        self._lock: FolderLock | None = None
        on_first(self._take_folder)
        start = prepare_start(recipe, folder)
        require_fitting_data(recipe, start.config, processes.count)
        description = describe_run(recipe, start.folder)
        self._notes, has_state = on_first(lambda: self._settled(description))
        self.source = training_batches(recipe, start, folder, runtime.store)
        self.learner = Learner(
            recipe, start, runtime.device, processes, filled=not has_state, compiled=runtime.compiled
        )
        self.progress = TrainingProgress(0, 0.0)
        self._validation: list[tuple[TrainingBatch, bool]] | None = None
        # All processes watch: those that share weights must run the same passes.
        self._watched = None if runtime.watch is None else WatchedFrames(runtime.watch, start)
        self._stop = False
        self._saved_at = time.monotonic()
        if has_state:
            self._resume()

    def run(self) -> Ending:
        """Train until all steps are done, the time is up or somebody asks to stop; then save and export.

        Raises:
            NonFiniteLossError: the loss or gradient is not finite; the batch is saved beside the log.
        """
        first = self.runtime.processes.is_first
        journal = RunLog(self.runtime.folder, active=first, total_steps=self.recipe.optimisation.steps)
        journal.write("start", self.progress.step, {"recipe": self.recipe.name})
        for note in self._notes:
            journal.write("note", self.progress.step, {"note": note})
        handlers = {sign: signal.signal(sign, self._ask_to_stop) for sign in (signal.SIGINT, signal.SIGTERM)}
        try:
            ending = self._train(journal)
            self.save()
            self.export()
            facts = {"ending": ending.value, "seconds": round(self.progress.seconds, 1)}
            journal.write("end", self.progress.step, facts)
        finally:
            for sign, handler in handlers.items():
                signal.signal(sign, handler)
            journal.close()
            self.close()
        return ending

    def _take_folder(self) -> None:
        self._lock = FolderLock(self.runtime.folder)

    def close(self) -> None:
        """Let others train in the folder."""
        if self._lock is not None:
            self._lock.release()

    def _settled(self, description: dict[str, Any]) -> tuple[list[str], bool]:
        """What people should know about the folder, and whether there is a state to continue from."""
        folder = self.runtime.folder
        damaged = sorted({*all_states(folder)} - {*whole_states(folder)})
        notes = [f"left out {state.name}: its files are not complete" for state in damaged]
        has_state = newest_state(folder) is not None
        notes += settle_record(folder, description, has_state=has_state, override=self.runtime.override)
        return notes, has_state

    def _train(self, journal: RunLog) -> Ending:
        meter, began, before = Meter(), time.monotonic(), self.progress.seconds
        ending, batches = Ending.COMPLETE, iter(self._loader())
        self._saved_at = began
        while self.progress.step < self.recipe.optimisation.steps and ending is Ending.COMPLETE:
            terms = self.step(batches, meter)
            meter.add(terms)
            seconds = time.monotonic() - began
            self.progress = TrainingProgress(self.progress.step + 1, before + seconds)
            journal.advance(self.progress.step, terms["loss"])
            ending, save_now = self._what_now(seconds)
            self._after_step(journal, meter, ending, save_now)
        return ending

    def step(self, batches: Iterator[TrainingBatch], meter: Meter | None = None) -> dict[str, float]:
        """One optimisation step; returns all terms of its loss, the gradient norm and the rate."""
        step, processes, device = self.progress.step, self.runtime.processes, self.runtime.device
        # All at once, because the share of each in the loss depends on what the others hold.
        held = [next(batches) for _ in range(self.recipe.batching.accumulate // processes.count)]
        counts = StepCounts.of(held).over_processes(device)
        sums: dict[str, float] = {}
        for i, batch_on_cpu in enumerate(held):
            batch = batch_on_cpu.to(device)
            if meter is not None:
                meter.count(batch.num_samples, batch.num_tokens)
            reduce_gradients_(self.learner.network, i == len(held) - 1)
            with _matrix_precision("medium" if self.recipe.fast_heads else None):
                loss = self._loss(batch, counts)
                if not bool(torch.isfinite(loss.total)):
                    self._fail(batch, f"the loss is {loss.total.item()}")
                # Shards are given the mean of all gradients, and the loss is the sum of all shares.
                (loss.total * processes.count).backward()
            for name, value in loss.terms.items():
                sums[name] = sums.get(name, 0.0) + float(value)
        norm = self.learner.gradient_norm()
        if not bool(torch.isfinite(norm)):
            self._fail(batch, f"the norm of the gradient is {norm.item()}")
        self.learner.apply(step)
        terms = sum_over_processes(sums, device)
        return {**terms, "gradient_norm": float(norm), "learning_rate": self.learner.learning_rate(step)}

    def _loss(self, batch: TrainingBatch, counts: StepCounts) -> BatchLoss:
        weight = self.recipe.optimisation.language_weight
        with self._autocast():
            return batch_loss(self.learner.network, batch, counts, weight, self.learner.guides)

    def _autocast(self) -> torch.autocast:
        enabled = self.recipe.precision is Precision.BFLOAT16
        return torch.autocast(self.runtime.device.type, torch.bfloat16, enabled=enabled)

    def _fail(self, batch: TrainingBatch, reason: str) -> None:
        path = self.runtime.folder / FAILED_BATCH
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(batch, path)
        raise NonFiniteLossError(
            f"Expected finite numbers at step {self.progress.step}, but {reason}: training stopped, its last "
            f"saved state is kept and the batch lies in {path}; resume with a lower learning rate."
        )

    def _loader(self) -> DataLoader[TrainingBatch]:
        workers = self.runtime.workers
        return DataLoader(
            self.source,  # type: ignore[arg-type]
            batch_size=None,
            sampler=_Indices(self.progress.step, self.recipe, self.runtime.processes),
            num_workers=workers,
            worker_init_fn=_set_up_worker,
            prefetch_factor=4 if workers else None,
        )

    def _what_now(self, seconds: float) -> tuple[Ending, bool]:
        """Whether the run ends after this step, and whether it is time to save; the same in all processes."""
        limit = self.runtime.max_minutes
        late = limit is not None and seconds > limit * 60
        due = time.monotonic() - self._saved_at > self.runtime.save_minutes * 60
        stop, late, due = any_process((self._stop, late, due), self.runtime.device)
        ending = Ending.OUT_OF_TIME if late else Ending.COMPLETE
        return Ending.INTERRUPTED if stop else ending, due

    def _ask_to_stop(self, *_: object) -> None:
        """The first signal ends the run after the present step, a second one at once."""
        if self._stop:
            raise KeyboardInterrupt
        self._stop = True

    def _after_step(self, journal: RunLog, meter: Meter, ending: Ending, save_now: bool) -> None:
        step, rhythm = self.progress.step, self.recipe.rhythm
        complete = step == self.recipe.optimisation.steps
        last = complete or ending is not Ending.COMPLETE
        if step % rhythm.log_every == 0 or last:
            journal.write("train", step, meter.means())
        # Before the validation, which may take long: whoever asked to stop may soon stop asking.
        if (step % rhythm.save_every == 0 or save_now) and not last:
            self.save()
        if ending is not Ending.INTERRUPTED and (step % rhythm.validate_every == 0 or complete):
            journal.write("validation", step, self.validate())

    def export(self) -> None:
        """Write the model, and the low-rank updates where they are what was trained."""
        self.learner.export(self.runtime.folder / MODEL_FOLDER, self.runtime.export_dtype)
        if self.runtime.processes.is_first:
            copy_record(self.runtime.folder, self.runtime.folder / MODEL_FOLDER)
        if self.recipe.lora is not None and isinstance(self.recipe.start, FromCheckpoint):
            self.learner.export_adapter(self.runtime.folder / ADAPTER_FOLDER)

    def validate(self) -> dict[str, float]:
        """Figures of the averaged weights on held-out data; empty where there is none.

        The processes share the batches.
        """
        if self._validation is None:
            self._validation = self._validation_share()
        network, figures = self.learner.network, {}
        with self.learner.averaged():
            if self._validation:
                on_device = ((batch.to(self.runtime.device), counts) for batch, counts in self._validation)
                figures = validate(network, on_device, self._autocast())
            if self._watched is not None:
                figures |= self._watched.figures(network, self._autocast())
        return figures

    def _validation_share(self) -> list[tuple[TrainingBatch, bool]]:
        """Held-out batches of this process, and whether they count here.

        All processes run as many passes, since they gather weights together: some repeat the last batch.
        """
        start, runtime = self.learner.start, self.runtime
        rank, processes, share = runtime.processes.rank, runtime.processes.count, []
        for source, count in validation_sources(self.recipe, start, runtime.folder, runtime.store):
            places = range(rank, count + -count % processes, processes)
            share += [(source[min(place, count - 1)], place < count) for place in places]
        return share

    def save(self) -> Path:
        """Write the training state."""
        content, keep = self.learner.content(), self.recipe.rhythm.keep
        folder = save_state(self.runtime.folder, self.progress, content, keep=keep)
        self._saved_at = time.monotonic()
        return folder

    def _resume(self) -> None:
        folder = on_first(lambda: newest_state(self.runtime.folder))
        assert folder is not None
        content = self.learner.content()
        load_state(folder, content)
        self.learner.take_over(content)
        self.progress = read_progress(folder)
