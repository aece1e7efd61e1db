"""The training loop: one for every recipe."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from g2vlm.errors import G2VLMError
from g2vlm.model.precision import Precision
from g2vlm.training.losses import GeometryLossWeights
from g2vlm.training.objective import BatchLoss, batch_loss
from g2vlm.training.recipes.recipe import Recipe, SyntheticData
from g2vlm.training.run.distributed import Processes, any_process, mean_over_processes
from g2vlm.training.run.journal import Meter, RunLog
from g2vlm.training.run.learner import Learner
from g2vlm.training.run.setup import prepare_start, require_fitting_data, training_batches, validation_batches
from g2vlm.training.run.states import TrainingProgress, load_state, newest_state, read_progress, save_state
from g2vlm.training.run.validation import validate
from g2vlm.training.sources.batches import TrainingBatch

MODEL_FOLDER = "model"
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
    store: Path | None = None
    """Where pictures of rooms that return are kept, shared between runs."""
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
        start = prepare_start(recipe, runtime.folder)
        require_fitting_data(recipe, start.network, runtime.processes.count)
        self.source = training_batches(recipe, start, runtime.store)
        self.learner = Learner(recipe, start, runtime.device, runtime.processes, compiled=runtime.compiled)
        self.progress = TrainingProgress(0, 0.0)
        self._validation: list[TrainingBatch] | None = None
        self._stop = False

    def run(self) -> Ending:
        """Train until all steps are done, the time is up or somebody asks to stop; then save and export.

        Raises:
            NonFiniteLossError: the loss or gradient is not finite; the batch is saved beside the log.
        """
        self.resume()
        first = self.runtime.processes.is_first
        journal = RunLog(self.runtime.folder, active=first, total_steps=self.recipe.optimisation.steps)
        journal.write("start", self.progress.step, {"recipe": self.recipe.name})
        handlers = {sign: signal.signal(sign, self._ask_to_stop) for sign in (signal.SIGINT, signal.SIGTERM)}
        try:
            ending = self._train(journal)
            self.save()
            self.learner.export(self.runtime.folder / MODEL_FOLDER, self.runtime.export_dtype)
            facts = {"ending": ending.value, "seconds": round(self.progress.seconds, 1)}
            journal.write("end", self.progress.step, facts)
        finally:
            for sign, handler in handlers.items():
                signal.signal(sign, handler)
            journal.close()
        return ending

    def _train(self, journal: RunLog) -> Ending:
        meter, began, before = Meter(), time.monotonic(), self.progress.seconds
        ending, batches = Ending.COMPLETE, iter(self._loader())
        while self.progress.step < self.recipe.optimisation.steps and ending is Ending.COMPLETE:
            terms = self.step(batches, meter)
            meter.add(terms)
            seconds = time.monotonic() - began
            self.progress = TrainingProgress(self.progress.step + 1, before + seconds)
            journal.advance(self.progress.step, terms["loss"])
            ending = self._ending(seconds)
            self._after_step(journal, meter, last=ending is not Ending.COMPLETE)
        return ending

    def step(self, batches: Iterator[TrainingBatch], meter: Meter | None = None) -> dict[str, float]:
        """One optimisation step; returns means of all loss terms, the gradient norm and the rate."""
        step = self.progress.step
        count = self.recipe.batching.accumulate // self.runtime.processes.count
        sums: dict[str, Tensor] = {}
        for _ in range(count):
            batch = next(batches).to(self.runtime.device)
            if meter is not None:
                meter.count(batch.num_samples, batch.num_tokens)
            with _matrix_precision("medium" if self.recipe.fast_heads else None):
                loss = self._loss(batch, step)
                if not bool(torch.isfinite(loss.total)):
                    self._fail(batch, f"the loss is {loss.total.item()}")
                (loss.total / count).backward()
            for name, value in loss.terms.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value / count
        norm = self.learner.gradient_norm()
        if not bool(torch.isfinite(norm)):
            self._fail(batch, f"the norm of the gradient is {norm.item()}")
        self.learner.apply(step)
        means = mean_over_processes({name: float(value) for name, value in sums.items()}, self.runtime.device)
        return {**means, "gradient_norm": float(norm), "learning_rate": self.learner.learning_rate(step)}

    def _loss(self, batch: TrainingBatch, step: int) -> BatchLoss:
        data, settings = self.recipe.data, self.recipe.optimisation
        weights, stride = GeometryLossWeights(), 1
        if isinstance(data, SyntheticData):
            phase = data.phase_at(step)
            weights, stride = phase.weights, phase.stride
        with self._autocast():
            return batch_loss(
                self.learner.network, batch, weights, settings.language_weight, stride, self.learner.guides
            )

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

    def _ending(self, seconds: float) -> Ending:
        device, limit = self.runtime.device, self.runtime.max_minutes
        if any_process(self._stop, device):
            return Ending.INTERRUPTED
        late = limit is not None and seconds > limit * 60
        return Ending.OUT_OF_TIME if any_process(late, device) else Ending.COMPLETE

    def _ask_to_stop(self, *_: object) -> None:
        """The first signal ends the run after the present step, a second one at once."""
        if self._stop:
            raise KeyboardInterrupt
        self._stop = True

    def _after_step(self, journal: RunLog, meter: Meter, *, last: bool) -> None:
        step, rhythm = self.progress.step, self.recipe.rhythm
        last = last or step == self.recipe.optimisation.steps
        if step % rhythm.log_every == 0 or last:
            journal.write("train", step, meter.means())
        if step % rhythm.validate_every == 0 or last:
            journal.write("validation", step, self.validate())
        if step % rhythm.save_every == 0 and not last:
            self.save()

    def validate(self) -> dict[str, float]:
        """Figures of the averaged weights on held-out rooms; empty where there are none."""
        if self._validation is None:
            source = validation_batches(self.recipe, self.learner.start, self.runtime.store)
            count = 0 if source is None else self.recipe.rhythm.validation_batches
            self._validation = [] if source is None else [source[i] for i in range(count)]
        if not self._validation:
            return {}
        with self.learner.averaged():
            on_device = (batch.to(self.runtime.device) for batch in self._validation)
            return validate(self.learner.network, on_device, self._autocast())

    def save(self) -> Path:
        """Write the training state."""
        content, keep = self.learner.content(), self.recipe.rhythm.keep
        return save_state(self.runtime.folder, self.progress, content, keep=keep)

    def resume(self) -> None:
        """Continue from the newest state of the folder, if there is one."""
        folder = newest_state(self.runtime.folder)
        if folder is not None:
            self.learner.restore(load_state(folder, self.learner.content()))
            self.progress = read_progress(folder)
