"""Runs a benchmark scene by scene, writing each down as it is finished."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from g2vlm.errors import InputError
from g2vlm.evaluation.asking import BLIND, Examiner, Sight, grey
from g2vlm.evaluation.geometry import GeometryOptions, SceneTruth, compare
from g2vlm.evaluation.predictors.interface import Answerer, Questions, Reconstructor, Views
from g2vlm.evaluation.predictors.own import OwnModel
from g2vlm.evaluation.predictors.saved import write_prediction
from g2vlm.evaluation.records import AnswerRecord, Journal, SceneRecord
from g2vlm.evaluation.scores import GeometryScores
from g2vlm.evaluation.trials import Benchmark, ItemGroup, Trial
from g2vlm.inference.timing import Stopwatch
from g2vlm.pipeline import Model

Progress = Callable[[int, int, SceneRecord], None]
"""Called after each scene with (scenes done, scenes in all, what was found)."""
Predictor = Model | Reconstructor | Answerer
"""Whatever can be evaluated: a model of this package, or anything with one of the two calls."""


@dataclass(frozen=True)
class RunOptions:
    """What is done with the scenes of a benchmark."""

    geometry: bool = True
    """Reconstruct, and measure depth, poses and points, where the benchmark knows them."""
    sights: tuple[Sight, ...] = (Sight.FULL,)
    """Ask every question once with each of these; empty asks none."""
    max_new_tokens: int = 160
    """Limit on the passes of an answer; the longest reasoning of the synthetic world takes about 120."""
    baselines: Mapping[str, Reconstructor] = field(default_factory=dict)
    """Simpler methods that are measured on the same photos, by their names."""
    keep: Path | None = None
    """Folder that what the method says about geometry is written to, to be measured again later."""


def run(
    benchmark: Benchmark,
    predictor: Predictor,
    journal: Journal,
    options: RunOptions,
    on_progress: Progress | None = None,
    scenes: Sequence[str] | None = None,
) -> tuple[SceneRecord, ...]:
    """Measure all scenes that the journal does not hold yet.

    Interrupting is safe at any time: finished scenes are in the journal, and the next call goes on.

    Args:
        benchmark: the scenes.
        predictor: what is measured; of a model its `view_attention`, device and precision are used.
        journal: of exactly this run.
        options: what to do.
        on_progress: told about every scene that is measured now.
        scenes: those to measure, all of the benchmark if None.

    Returns:
        The records of these scenes, in their order.

    Raises:
        InputError: a scene cannot be loaded.
        OutputError: the journal cannot be written.
    """
    scenes = benchmark.scenes() if scenes is None else scenes
    remaining = [scene for scene in scenes if scene not in journal.records]
    for number, scene in enumerate(remaining):
        record = measure(benchmark, predictor, scene, options)
        journal.add(record)
        if on_progress is not None:
            on_progress(len(scenes) - len(remaining) + number + 1, len(scenes), record)
    return tuple(journal.records[scene] for scene in scenes)


def measure(benchmark: Benchmark, predictor: Predictor, scene: str, options: RunOptions) -> SceneRecord:
    """Measure one scene.

    A reconstruction so degenerate that it cannot be compared (all points in one place, none finite) is a
    finding about the model: it is recorded as a failure. Errors of the scene's own files are raised.
    """
    method = OwnModel(predictor, options.max_new_tokens) if isinstance(predictor, Model) else predictor
    device = predictor.placement.device if isinstance(predictor, Model) else torch.device("cpu")
    watch = Stopwatch(device)
    with watch.measure("load_s"):
        trial = benchmark.load(scene)
    geometry = failure = None
    baselines: dict[str, GeometryScores] = {}
    if options.geometry and trial.truth is not None and isinstance(method, Reconstructor):
        views = Views(scene, trial.photos, _intrinsics(trial.truth))
        try:
            with watch.measure("reconstruct_s"):
                prediction = method.reconstruct(views)
            if options.keep is not None:
                write_prediction(options.keep, scene, prediction)
            with watch.measure("compare_s"):
                geometry = compare(prediction, trial.truth, benchmark.geometry_options)
        except InputError as error:
            failure = str(error)
        with watch.measure("baselines_s"):
            baselines = _baselines(options.baselines, views, trial.truth, benchmark.geometry_options)
    answers: list[AnswerRecord] = []
    with watch.measure("ask_s"):
        for sight in options.sights:
            answers += _answers(scene, trial, method, sight)
        if Sight.FULL in options.sights:
            for way, groups in trial.other_ways.items():
                answers += _answers(scene, Trial(groups=groups), method, Sight.FULL, way)
    return SceneRecord(scene, geometry, tuple(answers), failure, dict(watch.seconds), baselines, trial.part)


def _intrinsics(truth: SceneTruth) -> np.ndarray | None:
    return None if truth.K is None else truth.K.double().numpy()


def _baselines(
    methods: Mapping[str, Reconstructor], views: Views, truth: SceneTruth, options: GeometryOptions
) -> dict[str, GeometryScores]:
    """Scores of the methods that can say anything about these photos."""
    scores = {}
    for name, method in methods.items():
        try:
            scores[name] = compare(method.reconstruct(views), truth, options)
        except InputError:
            continue  # they need intrinsics, which not every benchmark knows: the counts show it
    return scores


def rescore(benchmark: Benchmark, record: SceneRecord, predictions: Reconstructor | None) -> SceneRecord:
    """Measure what a method said before, without asking it again.

    Args:
        benchmark: with the truth and the questions.
        record: of the run whose answers are judged anew.
        predictions: saved geometry; None keeps the geometry as it was measured.

    Raises:
        InputError: the benchmark asks other questions than the record answers.
    """
    trial = benchmark.load(record.scene)
    geometry = record.geometry
    if predictions is not None and geometry is not None and trial.truth is not None:
        views = Views(record.scene, trial.photos, _intrinsics(trial.truth))
        geometry = compare(predictions.reconstruct(views), trial.truth, benchmark.geometry_options)
    answers: list[AnswerRecord] = []
    for sight in dict.fromkeys(answer.sight for answer in record.answers):
        given = [answer for answer in record.answers if answer.sight == sight]
        groups = (
            list(trial.other_ways[sight])
            if sight in trial.other_ways
            else _as_seen(trial.groups, Sight(sight))
        )
        items = [item for group in groups for item in group.items]
        if [item.text for item in items] != [answer.question for answer in given]:
            raise InputError(f"Expected the questions of {record.scene} as before, got others: run it anew.")
        answers += [item.judge(one.answer, sight) for item, one in zip(items, given, strict=True)]
    return replace(record, geometry=geometry, answers=tuple(answers), part=trial.part)


def _answers(
    scene: str, trial: Trial, method: Reconstructor | Answerer, sight: Sight, way: str | None = None
) -> list[AnswerRecord]:
    """Answers to all questions of a trial, under the name of the sight, or of the way they are asked."""
    judged = []
    for group in _as_seen(trial.groups, sight):
        texts = _ask(scene, method, group, sight)
        items = zip(group.items, texts, strict=True)
        judged += [item.judge(text, way or sight.value) for item, text in items]
    return judged


def _ask(scene: str, method: Reconstructor | Answerer, group: ItemGroup, sight: Sight) -> tuple[str, ...]:
    questions = tuple(item.text for item in group.items)
    if isinstance(method, OwnModel):
        return Examiner(method.model, method.max_new_tokens).ask(group.photos, questions, sight)
    if not isinstance(method, Answerer):
        raise InputError("Expected a predictor that answers questions, got one of geometry: --what geometry.")
    if sight is Sight.NO_GEOMETRY:
        raise InputError("Only models of this package can be asked without geometric tokens: leave it out.")
    shown: list[Image.Image] = [] if sight is Sight.TEXT_ONLY else list(group.photos)
    if sight is Sight.GREY:
        shown = [grey(photo) for photo in shown]
    return tuple(method.answer(Questions(scene, tuple(shown), questions)))


def _as_seen(groups: tuple[ItemGroup, ...], sight: Sight) -> list[ItemGroup]:
    """Questions by what is shown with them.

    To blind sights all photos of a size look alike, so that many questions share one look.
    """
    if sight not in BLIND:
        return list(groups)
    alike: dict[tuple[tuple[int, int], ...], ItemGroup] = {}
    for group in groups:
        sizes = tuple(photo.size for photo in group.photos) if sight is Sight.GREY else ()
        known = alike.get(sizes)
        items = group.items if known is None else known.items + group.items
        alike[sizes] = ItemGroup(group.photos, items)
    return list(alike.values())
