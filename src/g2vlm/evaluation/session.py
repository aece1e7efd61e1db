"""A whole evaluation: from a benchmark and what is measured to a stored result, resumed and shared."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from g2vlm import __version__
from g2vlm.errors import InputError
from g2vlm.evaluation.predictors.saved import SavedPredictions
from g2vlm.evaluation.published import Published
from g2vlm.evaluation.records import Journal, SceneRecord
from g2vlm.evaluation.results import CheckpointIdentity, EvaluationResult, write_result
from g2vlm.evaluation.runner import Predictor, Progress, RunOptions, rescore, run
from g2vlm.evaluation.shares import Share, take_over_shares
from g2vlm.evaluation.summary import comparisons, geometry_figures, question_figures, score_figures
from g2vlm.evaluation.trials import Benchmark

RESULTS = Path("outputs/eval")


@dataclass(frozen=True, eq=False)
class Subject:
    """What is measured, and under which name."""

    identity: CheckpointIdentity
    predictor: Predictor
    settings: dict[str, Any] = field(default_factory=dict)
    """Choices of the predictor that the figures depend on, as JSON values."""
    seen: tuple[str, ...] = ()
    """Scenes that it was trained on, where that is allowed."""


@dataclass(frozen=True)
class SessionOptions:
    """Where results lie, and which part of the work is done now."""

    save_path: Path | None = None
    """JSON file of the result; named by everything the figures depend on if None."""
    share: Share = field(default_factory=Share)
    keep_predictions: bool = False
    """Write what the method says about geometry, to be measured again without it."""
    rescore: bool = False
    """Measure what is stored again, and ask nothing."""


@dataclass(frozen=True)
class Outcome:
    """What an evaluation ended with."""

    target: Path
    result: EvaluationResult | None
    """None where other processes are not done with their shares."""
    remaining: int = 0
    """Scenes that nobody has measured yet."""


def predictions_folder(target: Path) -> Path:
    """Where kept predictions of a result lie."""
    return target.with_suffix(".predictions")


def evaluate(
    benchmark: Benchmark,
    subject: Subject,
    doing: RunOptions,
    options: SessionOptions,
    published: tuple[Published, ...] = (),
    on_progress: Progress | None = None,
    on_resume: Callable[[int, Path], None] | None = None,
) -> Outcome:
    """Measure what is not measured yet, and write the result once all scenes are.

    Args:
        benchmark: what is asked.
        subject: who is asked.
        doing: with each scene; `keep` is set here.
        options: places and shares.
        published: figures of others on the same benchmark, to be printed beside.
        on_progress: told about every scene that is measured now.
        on_resume: told how many scenes are measured already, and where that is written.

    Raises:
        InputError: the journal belongs to another run, nothing is there to rescore, or a scene is unreadable.
        OutputError: the results cannot be written.
    """
    settings = {**benchmark.settings, **subject.settings}
    if subject.seen:
        settings["seen_in_training"] = list(subject.seen)
    settings = json.loads(json.dumps(settings))
    target = options.save_path or _named(benchmark, settings, subject.identity)
    identity = {"task": benchmark.task, "checkpoint": subject.identity.fingerprint, **settings}
    journal = Journal(options.share.journal_path(target.with_suffix(".jsonl")), identity)
    if options.rescore:
        _rescore(benchmark, journal, target)
    else:
        keep = predictions_folder(target) if options.keep_predictions else None
        doing = replace(doing, keep=keep)
        if options.share.is_all:
            take_over_shares(journal)
        if journal.records and on_resume is not None:
            on_resume(len(journal.records), journal.path)
        run(benchmark, subject.predictor, journal, doing, on_progress, options.share.of(benchmark.scenes()))
    whole = journal
    if not options.share.is_all:
        whole = _joined(journal, target)
    records = [whole.records[scene] for scene in benchmark.scenes() if scene in whole.records]
    remaining = len(benchmark.scenes()) - len(records)
    if remaining:
        return Outcome(target, None, remaining)
    result = _result(benchmark, subject, settings, records, published)
    write_result(result, target)
    return Outcome(target, result)


def _joined(journal: Journal, target: Path) -> Journal:
    """The journal of all shares together, written once the last of them is done."""
    whole = Journal(target.with_suffix(".jsonl"), journal.identity)
    take_over_shares(whole)
    return whole


def _rescore(benchmark: Benchmark, journal: Journal, target: Path) -> None:
    if not journal.records:
        raise InputError(
            f"Expected a run to measure again in {journal.path}, found none with these settings: run it "
            "without --rescore first, with the same words."
        )
    kept = predictions_folder(target)
    predictions = SavedPredictions(kept) if kept.is_dir() else None
    journal.replace_all([rescore(benchmark, record, predictions) for record in journal.records.values()])


def _named(benchmark: Benchmark, settings: dict[str, Any], identity: CheckpointIdentity) -> Path:
    text = json.dumps([benchmark.task, identity.fingerprint, settings], sort_keys=True)
    return RESULTS / f"{benchmark.task}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"


def _result(
    benchmark: Benchmark,
    subject: Subject,
    settings: dict[str, Any],
    records: list[SceneRecord],
    published: tuple[Published, ...],
) -> EvaluationResult:
    return EvaluationResult(
        task=benchmark.task,
        checkpoint=subject.identity,
        package_version=__version__,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=settings,
        num_scenes=len(records),
        failures=tuple((record.scene, record.failure) for record in records if record.failure),
        figures=(
            *geometry_figures(records),
            *score_figures(records, getattr(benchmark, "aggregates", ())),
            *question_figures(records),
        ),
        seconds=round(sum(sum(record.seconds.values()) for record in records), 1),
        comparisons=tuple(comparisons(records, subject.identity.name)),
        published=published,
    )
