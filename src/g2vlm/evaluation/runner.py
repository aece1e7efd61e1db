"""Runs a benchmark scene by scene, writing each down as it is finished."""

from collections.abc import Callable
from dataclasses import dataclass

from g2vlm.errors import InputError
from g2vlm.evaluation.asking import BLIND, Examiner, Sight
from g2vlm.evaluation.geometry import compare
from g2vlm.evaluation.records import AnswerRecord, Journal, SceneRecord
from g2vlm.evaluation.trials import Benchmark, ItemGroup, Trial
from g2vlm.inference.timing import Stopwatch
from g2vlm.pipeline import Model

Progress = Callable[[int, int, SceneRecord], None]
"""Called after each scene with (scenes done, scenes in all, what was found)."""


@dataclass(frozen=True)
class RunOptions:
    """What is done with the scenes of a benchmark."""

    geometry: bool = True
    """Reconstruct, and measure depth, poses and points, where the benchmark knows them."""
    sights: tuple[Sight, ...] = (Sight.FULL,)
    """Ask every question once with each of these; empty asks none."""
    max_new_tokens: int = 160
    """Limit on the passes of an answer; the longest reasoning of the synthetic world takes about 120."""


def run(
    benchmark: Benchmark,
    model: Model,
    journal: Journal,
    options: RunOptions,
    on_progress: Progress | None = None,
) -> tuple[SceneRecord, ...]:
    """Measure all scenes that the journal does not hold yet.

    Interrupting is safe at any time: finished scenes are in the journal, and the next call goes on.

    Args:
        benchmark: the scenes.
        model: whose `view_attention`, device and precision are used.
        journal: of exactly this run.
        options: what to do.
        on_progress: told about every scene that is measured now.

    Returns:
        The records of all scenes, in the order of the benchmark.

    Raises:
        InputError: a scene cannot be loaded.
        OutputError: the journal cannot be written.
    """
    scenes = benchmark.scenes()
    remaining = [scene for scene in scenes if scene not in journal.records]
    for number, scene in enumerate(remaining):
        record = measure(benchmark, model, scene, options)
        journal.add(record)
        if on_progress is not None:
            on_progress(len(scenes) - len(remaining) + number + 1, len(scenes), record)
    return tuple(journal.records[scene] for scene in scenes)


def measure(benchmark: Benchmark, model: Model, scene: str, options: RunOptions) -> SceneRecord:
    """Measure one scene.

    A reconstruction so degenerate that it cannot be compared (all points in one place, none finite) is a
    finding about the model: it is recorded as a failure. Errors of the scene's own files are raised.
    """
    watch = Stopwatch(model.placement.device)
    with watch.measure("load_s"):
        trial = benchmark.load(scene)
    geometry = failure = None
    if options.geometry and trial.truth is not None:
        try:
            with watch.measure("reconstruct_s"):
                reconstruction = model.reconstruct(list(trial.photos))
            with watch.measure("compare_s"):
                geometry = compare(reconstruction, trial.truth, benchmark.geometry_options)
        except InputError as error:
            failure = str(error)
    answers = []
    with watch.measure("ask_s"):
        for sight in options.sights:
            answers += _answers(trial, Examiner(model, options.max_new_tokens), sight)
    return SceneRecord(scene, geometry, tuple(answers), failure, dict(watch.seconds))


def _answers(trial: Trial, examiner: Examiner, sight: Sight) -> list[AnswerRecord]:
    judged = []
    for group in _as_seen(trial.groups, sight):
        texts = examiner.ask(group.photos, [item.text for item in group.items], sight)
        judged += [item.judge(text, sight.value) for item, text in zip(group.items, texts, strict=True)]
    return judged


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
