"""A whole checkup, from the files to the answers."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from g2vlm.checkpoints.loading import CHAT_PARTS, IncompleteCheckpointError, open_checkpoint
from g2vlm.errors import CheckpointError, G2VLMError
from g2vlm.evaluation.checkup.answering import measure_answers, truth_rows, word_rows
from g2vlm.evaluation.checkup.examples import Examples, read_examples
from g2vlm.evaluation.checkup.geometry import GeometryFigures, depth_difference, measure_geometry
from g2vlm.evaluation.checkup.limits import limits_for
from g2vlm.evaluation.checkup.loaded import memory_rows
from g2vlm.evaluation.checkup.looking import Looker
from g2vlm.evaluation.checkup.pictures import arriving_rows, remedy_rows
from g2vlm.evaluation.checkup.recording import Recording, record, recorded, recording_row
from g2vlm.evaluation.checkup.rows import Group, Limits, Row
from g2vlm.evaluation.checkup.stored import digest_rows, number_rows
from g2vlm.model.config import ViewAttention
from g2vlm.pipeline import Model
from g2vlm.scene.scene import Scene

Step = Callable[[str], None]
"""Told what is being done."""
LINALG_ERROR: type[Exception] = torch.linalg.LinAlgError  # type: ignore[attr-defined]
ORTHONORMAL = 1e-4
"""Largest entry of |R R^T - 1| that float32 leaves; bfloat16 leaves 4e-3."""


def file_rows(folder: Path, on_step: Step = lambda text: None) -> Iterator[Row]:
    """Look at the files of a checkpoint: keys, digests, numbers. Nothing follows keys that do not fit."""
    broken = "missing keys are garbage answers; other shapes are another model"
    try:
        weights, _ = open_checkpoint(folder)
    except IncompleteCheckpointError as error:
        yield Row(
            Group.FILE, "keys and shapes", False, str(error.report), "exactly those of the network", broken
        )
        return
    except CheckpointError as error:
        yield Row(
            Group.FILE, "keys and shapes", False, str(error), "a readable checkpoint", "a truncated file"
        )
        return
    count = f"{len(weights.shapes)} tensors"
    yield Row(Group.FILE, "keys and shapes", True, count, "exactly those of the network", broken)
    on_step("digest of the weights")
    yield from digest_rows(folder, weights)
    yield from number_rows(folder, on_step)


@dataclass
class Examination:
    """Looks at one loaded model; `rows` goes through all of it.

    Args:
        model: loaded without quantization.
        name: under which a recording of it may be kept.
        on_step: told what is being done.
    """

    model: Model
    name: str
    on_step: Step = lambda text: None
    recording: Recording | None = None
    """What the model computed, once it was looked at."""

    def rows(self, examples: Examples | None = None) -> Iterator[Row]:
        """Everything that is found with the weights in memory."""
        examples = examples or read_examples()
        look, limits = Looker(self.model, examples.photos), limits_for(self.model.config)
        self.on_step("weights in memory against the file")
        self.model.load_parts(CHAT_PARTS)
        yield from memory_rows(self.model)
        self.on_step("what arrives at the encoders")
        yield from arriving_rows(look)
        yield from _guarded(self._results(look, examples, limits))

    def _results(self, look: Looker, examples: Examples, limits: Limits) -> Iterator[Row]:
        self.on_step(f"reconstruction of {len(examples.photos)} photos")
        scene = look.scene()
        yield from geometry_rows(measure_geometry(scene, examples.truth), limits)
        self.on_step("the same with the other attention between views")
        yield attention_row(scene, look.scene(_other(self.model.view_attention)), limits)
        self.on_step("other preparations of the pictures")
        yield from remedy_rows(look, examples)
        self.on_step("answers")
        seen = look.look()
        yield from word_rows(look, seen, examples, limits)
        found = measure_answers(look, seen, examples)
        yield from truth_rows(found, limits)
        self.recording = record(scene, found.true)
        yield recording_row(self.recording, recorded(self.name))


def _guarded(rows: Iterator[Row]) -> Iterator[Row]:
    """The same rows, and a last one if numbers are so wrong that nothing further can be computed."""
    try:
        yield from rows
    except (G2VLMError, LINALG_ERROR) as error:
        fault = "a broken load: no numbers, or no rotations"
        yield Row(Group.GEOMETRY, "usable results", False, str(error), "on every photo", fault)


def _other(attention: ViewAttention) -> ViewAttention:
    return ViewAttention.CAUSAL if attention is ViewAttention.GLOBAL else ViewAttention.GLOBAL


def attention_row(scene: Scene, other: Scene, limits: Limits) -> Row:
    """Compare global with causal attention, for both of which the weights are good."""
    apart = depth_difference(scene, other)
    return Row(
        Group.CONSISTENCY,
        "depth with causal against global attention",
        apart <= limits.causal_depth,
        f"{apart:.1%} apart",
        f"{limits.causal_depth:.0%} or less",
        "30 % or more: a mask, positions or the rotary base are wrong",
    )


def geometry_rows(found: GeometryFigures, limits: Limits) -> Iterator[Row]:
    """Judge the errors of a reconstruction."""

    def row(subject: str, fine: bool, value: str, expected: str, broken: str) -> Row:
        return Row(Group.GEOMETRY, subject, fine, value, expected, broken)

    yield row(
        "depth error (AbsRel, one scale)",
        found.abs_rel <= limits.abs_rel,
        f"{found.abs_rel:.3f}",
        f"{limits.abs_rel:g} or less",
        "0.35 or more; channels exchanged: twice as much as healthy",
    )
    yield row(
        "order in depth",
        found.depth_order >= limits.depth_order,
        f"{found.depth_order:.1%} of pairs",
        f"{limits.depth_order:.0%} or more",
        "50 to 60 %: by chance",
    )
    yield row(
        "focal length",
        found.focal <= limits.focal,
        f"{found.focal:.1%} off",
        f"{limits.focal:.0%} or less",
        "20 to 80 %: wrong normalisation, exchanged experts",
    )
    yield row(
        "rotation between views",
        found.rotation_deg <= limits.rotation_deg,
        f"{found.rotation_deg:.1f} degrees off",
        f"{limits.rotation_deg:g} degrees or less",
        "20 degrees or more",
    )
    yield row(
        "direction between views",
        found.direction_deg <= limits.direction_deg,
        f"{found.direction_deg:.1f} degrees off",
        f"{limits.direction_deg:g} degrees or less",
        "50 to 130 degrees",
    )
    yield row(
        "points between views",
        found.between_views <= limits.between_views,
        f"{found.between_views:.1%} of their depth apart",
        f"{limits.between_views:.0%} or less",
        "above 30 %: cameras and points do not belong together",
    )
    yield row(
        "rotations are rotations",
        found.orthonormal <= ORTHONORMAL,
        f"|R R^T - 1| up to {found.orthonormal:.1e}",
        f"{ORTHONORMAL:g} or less",
        "4e-3: heads in bfloat16; 2: a reflection",
    )


@dataclass(frozen=True)
class Checkup:
    """Everything that was found about a checkpoint."""

    name: str
    rows: tuple[Row, ...]
    recording: Recording | None
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether nothing is other than expected."""
        return all(row.passed is not False for row in self.rows)


def check_up(
    folder: Path,
    name: str,
    open_model: Callable[[], Model],
    *,
    on_row: Callable[[Row], None] = lambda row: None,
    on_step: Step = lambda text: None,
) -> Checkup:
    """Prove a checkpoint.

    Args:
        folder: holds it.
        name: hub id or bundled name, under which results may be recorded.
        open_model: loads it; called once its files are whole.
        on_row: told each row as it is found.
        on_step: told what is being done.
    """
    start, rows = time.perf_counter(), list[Row]()

    def take(found: Iterator[Row]) -> None:
        for row in found:
            rows.append(row)
            on_row(row)

    take(file_rows(folder, on_step))
    recording = None
    if rows[0].passed:
        on_step("loading")
        examination = Examination(open_model(), name, on_step)
        take(examination.rows())
        recording = examination.recording
    return Checkup(name, tuple(rows), recording, time.perf_counter() - start)
