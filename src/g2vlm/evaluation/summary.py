"""From the records of all scenes to figures with error bars."""

from collections.abc import Callable, Sequence

import numpy as np

from g2vlm.evaluation.asking import BLIND, Sight
from g2vlm.evaluation.guessing import GUESS, guesses
from g2vlm.evaluation.measures import MEASURES, Measure, Statistic
from g2vlm.evaluation.metrics.uncertainty import (
    Interval,
    bootstrap_difference,
    bootstrap_macro,
    bootstrap_mean,
    bootstrap_median,
)
from g2vlm.evaluation.records import AnswerRecord, SceneRecord
from g2vlm.evaluation.results import Better, Comparison, Figure
from g2vlm.evaluation.scores import GeometryScores
from g2vlm.evaluation.trials import Aggregate

Sums = tuple[np.ndarray, np.ndarray]
"""Sum and number of the items of each scene."""


def geometry_figures(
    records: Sequence[SceneRecord],
    of: Callable[[SceneRecord], GeometryScores | None] = lambda record: record.geometry,
) -> list[Figure]:
    """Figures over the scenes whose geometry was measured; those that no scene offers are left out.

    Args:
        records: of all scenes.
        of: the scores that are meant: the model's own, or a baseline's.
    """
    scores = [found for record in records if (found := of(record)) is not None]
    figures = []
    for measure in MEASURES:
        items = _items(scores, measure)
        sums = _sums(items)
        if sums[1].sum() > 0:
            middle = measure.statistic is Statistic.MEDIAN
            interval = bootstrap_median(items) if middle else bootstrap_mean(*sums)
            figures.append(_figure(measure.key, measure.label, interval, sums, measure.unit, measure.better))
    return figures


def comparisons(records: Sequence[SceneRecord], own: str) -> list[Comparison]:
    """The model beside the baselines, over all scenes and for each part of them.

    Args:
        records: of all scenes.
        own: what the model is called.

    Returns:
        Empty where there are neither baselines nor parts.
    """
    names = list(dict.fromkeys(name for record in records for name in record.baselines))
    parts = list(dict.fromkeys(record.part for record in records))
    if not names and len(parts) < 2:
        return []
    found = []
    for part in [*parts, ""] if len(parts) > 1 else parts[:1]:
        chosen = [record for record in records if part in ("", record.part)]
        found.append(Comparison(part, own, tuple(geometry_figures(chosen))))
        for name in names:
            of = _baseline(name)
            found.append(Comparison(part, name, tuple(geometry_figures(chosen, of))))
    return [one for one in found if one.figures]


def _baseline(name: str) -> Callable[[SceneRecord], GeometryScores | None]:
    return lambda record: record.baselines.get(name)


def _items(scores: Sequence[GeometryScores | None], measure: Measure) -> list[list[float]]:
    found = [() if one is None else measure.items(one) for one in scores]
    return [[value for value in values if value is not None] for values in found]


def _geometry_sums(records: Sequence[SceneRecord], measure: Measure) -> Sums:
    return _sums(_items([record.geometry for record in records], measure))


def _sums(per_scene: Sequence[Sequence[float]]) -> Sums:
    sums = np.array([sum(values) for values in per_scene], dtype=np.float64)
    return sums, np.array([len(values) for values in per_scene], dtype=np.float64)


def _figure(
    key: str, label: str, interval: Interval, sums: Sums, unit: str, better: Better = Better.HIGHER
) -> Figure:
    return Figure(
        key=key,
        label=label,
        value=interval.value,
        low=interval.low,
        high=interval.high,
        unit=unit,
        better=better,
        num_items=int(sums[1].sum()),
        num_scenes=int((sums[1] > 0).sum()),
        standard_error=interval.error,
    )


Chosen = Callable[[AnswerRecord], bool]
Scored = Callable[[AnswerRecord], float | None]


def _is_number(answer: AnswerRecord) -> bool:
    return not (answer.is_choice or answer.is_missing)


SLICES: tuple[tuple[str, str, Chosen, Scored], ...] = (
    ("choices", "choices", lambda a: a.is_choice, lambda a: float(a.is_right)),
    ("numbers", "numbers within 25 %", _is_number, lambda a: float(a.is_right)),
    ("numbers_mra", "numbers, mean relative accuracy", _is_number, lambda a: a.mra),
    ("missing", "things that are not there, said so", lambda a: a.is_missing, lambda a: float(a.is_right)),
    ("all", "all questions", lambda a: True, lambda a: float(a.is_right)),
    (
        "multi_view",
        "questions that need several views",
        lambda a: a.needs_multiple_views,
        lambda a: float(a.is_right),
    ),
    ("unread", "answers that could not be read", lambda a: True, lambda a: float(a.read is None)),
)
"""Groups of questions, and the number averaged in each."""


def question_figures(records: Sequence[SceneRecord]) -> list[Figure]:
    """Accuracy of every sight, overall and by family, of guesses, and what sight gains over blindness."""
    sights = list(dict.fromkeys(answer.sight for record in records for answer in record.answers))
    if not sights:
        return []
    per_sight = {
        sight: [tuple(a for a in record.answers if a.sight == sight) for record in records]
        for sight in sights
    }
    per_sight[GUESS] = guesses(per_sight[sights[0]])
    figures = []
    for sight, answers in per_sight.items():
        for key, label, chosen, score in SLICES:
            better = Better.LOWER if key == "unread" else Better.HIGHER
            figures += _accuracy(
                f"questions/{key}/{sight}", f"{label} ({sight})", answers, chosen, score, better
            )
        families = sorted({(a.family, a.is_choice) for scene in answers for a in scene if not a.is_missing})
        for family, is_choice in families:
            kind = "choices" if is_choice else "numbers"
            figures += _accuracy(
                f"families/{family}/{kind}/{sight}",
                f"{family}, {kind} ({sight})",
                answers,
                _of(family, is_choice),
                lambda a: float(a.is_right),
            )
    return figures + _gains(per_sight)


def score_figures(records: Sequence[SceneRecord], aggregates: Sequence[Aggregate]) -> list[Figure]:
    """The figures that a benchmark publishes, over the scores that it gives to answers, for every sight.

    Args:
        records: of all scenes.
        aggregates: how scores of families become figures.
    """
    sights = list(dict.fromkeys(answer.sight for record in records for answer in record.answers))
    figures = []
    for aggregate in aggregates:
        for sight in sights:
            chosen = [[a for a in r.answers if a.sight == sight and a.score is not None] for r in records]
            if aggregate.only:
                chosen = [[a for a in scene if a.family in aggregate.only] for scene in chosen]
            families = aggregate.weights or {"": 1.0}
            per_family = [
                _sums([[a.score or 0.0 for a in scene if name in ("", a.family)] for scene in chosen])
                for name in families
            ]
            sums, counts = (np.stack([pair[k] for pair in per_family]) for k in (0, 1))
            if counts.sum() == 0:
                continue
            interval = bootstrap_macro(sums, counts, np.array(list(families.values())))
            flat = (sums.sum(axis=0), counts.sum(axis=0))
            key, label = f"score/{aggregate.key}/{sight}", f"{aggregate.label} ({sight})"
            figures.append(_figure(key, label, interval, flat, "share"))
    return figures


def _of(family: str, is_choice: bool) -> Chosen:
    return lambda answer: answer.family == family and answer.is_choice == is_choice


def _accuracy(
    key: str,
    label: str,
    answers: Sequence[Sequence[AnswerRecord]],
    chosen: Chosen,
    score: Scored,
    better: Better = Better.HIGHER,
) -> list[Figure]:
    sums = _sums_of(answers, chosen, score)
    if sums[1].sum() == 0:
        return []
    return [_figure(key, label, bootstrap_mean(*sums), sums, "share", better)]


def _sums_of(answers: Sequence[Sequence[AnswerRecord]], chosen: Chosen, score: Scored) -> Sums:
    scored = [[score(a) for a in scene if chosen(a)] for scene in answers]
    return _sums([[value for value in values if value is not None] for values in scored])


def _gains(per_sight: dict[str, list[tuple[AnswerRecord, ...]]]) -> list[Figure]:
    """Differences to the full sight over the same questions, in paired resamples."""
    full = Sight.FULL.value
    others = [name for name in per_sight if name != full]
    figures = []
    for key, label, chosen, score in SLICES:
        if full not in per_sight or key in ("unread", "numbers_mra"):
            continue
        seeing = _sums_of(per_sight[full], chosen, score)
        for other in others:
            sums = _sums_of(per_sight[other], chosen, score)
            if seeing[1].sum() and sums[1].sum():
                difference = bootstrap_difference(seeing, sums)
                figures.append(
                    _figure(f"gain/{key}/{other}", f"{label}: full over {other}", difference, sums, "share")
                )
    return figures


def differences(first: Sequence[SceneRecord], second: Sequence[SceneRecord]) -> list[Figure]:
    """What the second run has more than the first, over the scenes of both, in paired resamples.

    Answers are compared with the sight that each run asked first, so that a model trained without geometric
    tokens can be compared, asked in its own way, with one that has them.

    Returns:
        Figures with the keys of `geometry_figures`, and `questions/...` without a sight.
    """
    common = {record.scene: record for record in first}
    pairs = [(common[record.scene], record) for record in second if record.scene in common]
    figures = []
    for measure in MEASURES:
        if measure.statistic is Statistic.MEDIAN:
            continue  # differences are of means, in paired resamples
        sides = [_geometry_sums([pair[k] for pair in pairs], measure) for k in (0, 1)]
        figures += _difference(measure.key, measure.label, sides, measure.unit, measure.better)
    for key, label, chosen, score in SLICES:
        sides = [_sums_of([_own_answers(pair[k]) for pair in pairs], chosen, score) for k in (0, 1)]
        better = Better.LOWER if key == "unread" else Better.HIGHER
        figures += _difference(f"questions/{key}", label, sides, "share", better)
    return figures


def _own_answers(record: SceneRecord) -> list[AnswerRecord]:
    return [answer for answer in record.answers if answer.sight == record.answers[0].sight]


def _difference(key: str, label: str, sides: Sequence[Sums], unit: str, better: Better) -> list[Figure]:
    first, second = sides
    if not ((first[1] > 0) & (second[1] > 0)).any():
        return []
    return [_figure(key, label, bootstrap_difference(second, first), second, unit, better)]


def strongest_blind(figures: Sequence[Figure], group: str) -> str | None:
    """Name of the best baseline without photos for a group of questions, None where none was run."""
    names = (*(sight.value for sight in BLIND), GUESS)
    found = [(f.value, name) for name in names for f in figures if f.key == f"questions/{group}/{name}"]
    return max(found)[1] if found else None
