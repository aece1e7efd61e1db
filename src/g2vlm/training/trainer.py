"""The training loop: one for every recipe."""

import math
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from g2vlm.checkpoints.saving import save_network
from g2vlm.errors import G2VLMError
from g2vlm.model.network import G2VLM
from g2vlm.model.precision import Precision
from g2vlm.training.compilation import compile_layers_
from g2vlm.training.average import WeightAverage
from g2vlm.training.batches import BatchSource, TrainingBatch
from g2vlm.training.journal import Journal
from g2vlm.training.losses import GeometryLossWeights
from g2vlm.training.objective import batch_loss
from g2vlm.training.recipe import Recipe, SyntheticData
from g2vlm.training.schedule import cosine_with_warmup
from g2vlm.training.setup import Start, prepare_start, require_fitting_data, training_batches, validation_batches
from g2vlm.training.stages import freeze_
from g2vlm.training.states import (
    Progress,
    load_state,
    newest_state,
    random_state,
    read_progress,
    save_state,
    set_random_state,
)
from g2vlm.training.validation import validate

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
    device: torch.device = torch.device("cpu")
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


class _Indices:
    """A sampler: micro-batch indices of this process from one step on."""

    def __init__(self, first_step: int, recipe: Recipe, rank: int, processes: int) -> None:
        per_step = recipe.batching.accumulate
        self.indices = [
            step * per_step + micro
            for step in range(first_step, recipe.optimisation.steps)
            for micro in range(rank, per_step, processes)
        ]

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def _one_thread(_: int) -> None:
    """Workers make batches one at a time; more threads would take them from the network."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Trainer:
    """Runs a recipe in a folder, from its newest state if there is one.

    Args:
        recipe: what to do.
        runtime: where and how.
    """

    def __init__(self, recipe: Recipe, runtime: Runtime) -> None:
        self.recipe, self.runtime = recipe, runtime
        self.start: Start = prepare_start(recipe, runtime.folder)
        self.network: G2VLM = self.start.network.to(runtime.device)
        require_fitting_data(recipe, self.network)
        self.weights = dict(freeze_(self.network, recipe.trained))
        self._set_checkpointing()
        if runtime.compiled:
            compile_layers_(self.network)
        self.optimizer = _optimizer(self.weights, recipe)
        decay = recipe.optimisation.ema_decay
        self.average = None if decay is None else WeightAverage(self.weights, decay)
        self.progress = Progress(0, 0.0)
        self.validation: list[TrainingBatch] | None = None
        self._stop = False

    def run(self) -> Ending:
        """Train until all steps are done, the time is up or somebody asks to stop; then save and export.

        Raises:
            NonFiniteLossError: the loss or gradient is not finite; the batch is saved beside the log.
        """
        self.resume()
        total = self.recipe.optimisation.steps
        journal = Journal(self.runtime.folder, active=True, total_steps=total)
        began, before = time.monotonic(), self.progress.seconds
        previous = {number: signal.signal(number, self._ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        ending = Ending.COMPLETE
        batches = iter(self._loader(self.progress.step))
        journal.write("start", self.progress.step, {"recipe": self.recipe.name, "device": str(self.runtime.device)})
        meter = _Meter()
        try:
            while self.progress.step < total:
                terms = self.step(batches, meter)
                seconds = time.monotonic() - began
                self.progress = Progress(self.progress.step + 1, before + seconds)
                meter.add(terms)
                journal.advance(self.progress.step, terms["loss"])
                ending = self._ending(seconds)
                self._after_step(journal, meter, last=ending is not Ending.COMPLETE)
                if ending is not Ending.COMPLETE:
                    break
            self.save()
            self.export(self.runtime.folder / MODEL_FOLDER)
            journal.write("end", self.progress.step, {"ending": ending.value, "seconds": self.progress.seconds})
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            journal.close()
        return ending

    def step(self, batches: Iterator[TrainingBatch], meter: "_Meter") -> dict[str, float]:
        """One optimisation step; returns the mean of every loss term, the gradient norm and the rate."""
        step, settings = self.progress.step, self.recipe.optimisation
        factor = cosine_with_warmup(
            step, warmup=settings.warmup, total=settings.steps, floor=settings.final_fraction
        )
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * factor
        sums: dict[str, Tensor] = {}
        count = self.recipe.batching.accumulate
        for _ in range(count):
            batch = next(batches).to(self.runtime.device)
            meter.count(batch)
            loss = self._loss(batch, step)
            if not bool(torch.isfinite(loss.total)):
                self._fail(batch, f"the loss is {float(loss.total)}")
            (loss.total / count).backward()
            for name, value in loss.terms.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value / count
        norm = nn.utils.clip_grad_norm_(list(self.weights.values()), settings.clip)
        if not bool(torch.isfinite(norm)):
            self._fail(batch, f"the norm of the gradient is {float(norm)}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.weights, step)
        return {name: float(value) for name, value in sums.items()} | {
            "gradient_norm": float(norm),
            "learning_rate": settings.learning_rate * factor,
        }

    def _loss(self, batch: TrainingBatch, step: int) -> Any:
        data = self.recipe.data
        weights, stride = GeometryLossWeights(), 1
        if isinstance(data, SyntheticData):
            phase = data.phase_at(step)
            weights, stride = phase.weights, phase.stride
        with self.autocast():
            return batch_loss(self.network, batch, weights, self.recipe.optimisation.language_weight, stride)

    def autocast(self) -> torch.autocast:
        """Precision of a pass."""
        return torch.autocast(
            self.runtime.device.type, torch.bfloat16, enabled=self.recipe.precision is Precision.BFLOAT16
        )

    def _fail(self, batch: TrainingBatch, reason: str) -> None:
        path = self.runtime.folder / FAILED_BATCH
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(batch, path)
        raise NonFiniteLossError(
            f"Expected finite numbers at step {self.progress.step}, but {reason}: training stopped, its last "
            f"state is kept and the batch is saved in {path}; resume with a lower learning rate."
        )

    def _loader(self, first_step: int) -> DataLoader[TrainingBatch]:
        source: BatchSource = training_batches(self.recipe, self.start, self.runtime.store)
        workers = self.runtime.workers
        return DataLoader(
            source,  # type: ignore[arg-type]
            batch_size=None,
            sampler=_Indices(first_step, self.recipe, 0, 1),
            num_workers=workers,
            worker_init_fn=_one_thread,
            prefetch_factor=4 if workers else None,
            persistent_workers=False,
        )

    def _ending(self, seconds: float) -> Ending:
        if self._stop:
            return Ending.INTERRUPTED
        limit = self.runtime.max_minutes
        return Ending.OUT_OF_TIME if limit is not None and seconds > limit * 60 else Ending.COMPLETE

    def _ask_to_stop(self, *_: object) -> None:
        if self._stop:
            raise KeyboardInterrupt
        self._stop = True

    def _after_step(self, journal: Journal, meter: "_Meter", *, last: bool) -> None:
        step, rhythm = self.progress.step, self.recipe.rhythm
        last = last or step == self.recipe.optimisation.steps
        if step % rhythm.log_every == 0 or last:
            journal.write("train", step, meter.means())
        if step % rhythm.validate_every == 0 or last:
            figures = self.validate()
            if figures:
                journal.write("validation", step, figures)
        if step % rhythm.save_every == 0 and not last:
            self.save()

    def validate(self) -> dict[str, float]:
        """Figures of the averaged weights on held-out rooms; empty where there are none."""
        if self.validation is None:
            source = validation_batches(self.recipe, self.start, self.runtime.store)
            count = 0 if source is None else self.recipe.rhythm.validation_batches
            self.validation = [source[i].to(self.runtime.device) for i in range(count)] if source else []
        if not self.validation:
            return {}
        with self._averaged():
            return validate(self.network, self.validation, self.autocast())

    def _averaged(self) -> "_Swapped":
        return _Swapped(self.average, self.weights)

    def save(self) -> Path:
        """Write the training state."""
        content = self._content()
        return save_state(self.runtime.folder, self.progress, content, keep=self.recipe.rhythm.keep)

    def resume(self) -> None:
        """Continue from the newest state of the folder, if there is one."""
        folder = newest_state(self.runtime.folder)
        if folder is None:
            return
        content = load_state(folder, self._content())
        self.network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        set_random_state(content["random"])
        self.progress = read_progress(folder)

    def _content(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            "random": random_state(),
        }

    def export(self, folder: Path) -> Path:
        """Write the (averaged) weights as a checkpoint that `g2vlm.load` reads."""
        with self._averaged():
            save_network(
                self.network, folder, tokenizer_from=self.start.tokenizer_folder, dtype=self.runtime.export_dtype
            )
        return folder

    def _set_checkpointing(self) -> None:
        for tower in (self.network.geometric_encoder, self.network.semantic_encoder, self.network.mixture):
            if tower is not None:
                tower.checkpointing = self.recipe.checkpointing  # type: ignore[assignment]


class _Swapped:
    """Within it, the network has its averaged weights."""

    def __init__(self, average: WeightAverage | None, weights: dict[str, nn.Parameter]) -> None:
        self.average, self.weights = average, weights

    def __enter__(self) -> None:
        if self.average is not None:
            self.average.swap(self.weights)

    def __exit__(self, *_: object) -> None:
        if self.average is not None:
            self.average.swap(self.weights)


class _Meter:
    """Means between two lines of the log."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._steps = self._samples = self._tokens = 0
        self._since = time.monotonic()

    def count(self, batch: TrainingBatch) -> None:
        """Take the size of a micro-batch."""
        self._samples += batch.num_samples
        self._tokens += batch.num_tokens

    def add(self, terms: dict[str, float]) -> None:
        """Take the results of a step."""
        self._steps += 1
        for name, value in terms.items():
            self._sums[name] += value

    def means(self) -> dict[str, float]:
        """Means since the last call, and the speed."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        means = {name: round(value / max(1, self._steps), 6) for name, value in self._sums.items()}
        means["samples_per_s"] = round(self._samples / seconds, 2)
        means["tokens_per_s"] = round(self._tokens / seconds, 1)
        self._reset()
        assert all(math.isfinite(value) for value in means.values())
        return means


def _optimizer(weights: dict[str, nn.Parameter], recipe: Recipe) -> torch.optim.AdamW:
    settings = recipe.optimisation
    matrices = [w for name, w in weights.items() if w.ndim == 2 and "embedding" not in name]
    others = [w for name, w in weights.items() if w.ndim != 2 or "embedding" in name]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=1e-8, fused=True)
