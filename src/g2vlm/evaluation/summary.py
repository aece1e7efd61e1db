"""From the records of all scenes to figures with error bars."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch

from g2vlm.evaluation.asking import BLIND, Sight
from g2vlm.evaluation.guessing import GUESS, guesses
from g2vlm.evaluation.metrics.depth import DepthAlignment
from g2vlm.evaluation.metrics.poses import auc_shares
from g2vlm.evaluation.metrics.uncertainty import (
    Interval,
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_median,
)
from g2vlm.evaluation.records import AnswerRecord, SceneRecord
from g2vlm.evaluation.results import Better, Comparison, Figure
from g2vlm.evaluation.scores import GeometryScores

Sums = tuple[np.ndarray, np.ndarray]
"""Sum and number of the items of each scene."""


class Statistic(Enum):
    """What is made of the items of all scenes."""

    MEAN = "mean"
    MEDIAN = "median"


@dataclass(frozen=True)
class Measure:
    """How one figure is computed from the items of each scene."""

    key: str
    label: str
    unit: str
    better: Better
    items: Callable[[GeometryScores], Iterable[float | None]]
    """The numbers of one scene that are averaged; None does not count."""
    statistic: Statistic = Statistic.MEAN


def _folded(scores: GeometryScores) -> np.ndarray:
    angles = np.asarray(scores.translation_deg)
    return np.minimum(angles, 180 - angles)


def _share(length: float | None, scores: GeometryScores) -> float | None:
    return None if length is None or not scores.diagonal else length / scores.diagonal


def _auc(scores: GeometryScores, translation_deg: np.ndarray, threshold: int) -> list[float]:
    if not scores.rotation_deg:
        return []
    largest = np.maximum(np.asarray(scores.rotation_deg), translation_deg)
    return list(auc_shares(torch.from_numpy(np.atleast_1d(largest)), threshold).tolist())


def _below(angles: Iterable[float], threshold: int | float) -> list[float]:
    return [float(angle < threshold) for angle in angles]


def _signed(scores: GeometryScores) -> np.ndarray:
    return np.asarray(scores.translation_deg)


LOWER, HIGHER = Better.LOWER, Better.HIGHER
ALIGNMENT_LABELS = {
    DepthAlignment.NONE: "in metres as predicted",
    DepthAlignment.PER_IMAGE: "one scale per view",
    DepthAlignment.PER_SCENE: "one scale per scene",
    DepthAlignment.MEDIAN_OF_RATIOS: "one scale per scene, median of ratios",
    DepthAlignment.SCALE: "one scale per scene, least absolute",
    DepthAlignment.SCALE_SHIFT: "scale and shift per scene, least absolute",
}


def _aligned(alignment: DepthAlignment) -> tuple[Measure, Measure]:
    """Measures of depth after an alignment that a benchmark asks for beside the usual ones."""
    name, label = alignment.value, ALIGNMENT_LABELS[alignment]

    def found(scores: GeometryScores, field: str) -> list[float]:
        return [getattr(scores.aligned[name], field)] if name in scores.aligned else []

    return (
        Measure(f"depth/abs_rel/{name}", f"depth AbsRel, {label}", "", LOWER, lambda s: found(s, "abs_rel")),
        Measure(
            f"depth/delta/{name}",
            f"depth within a factor of 1.25, {label}",
            "share",
            HIGHER,
            lambda s: found(s, "delta"),
        ),
    )


MEASURES = (
    Measure("depth/abs_rel", "depth AbsRel, one scale per scene", "", LOWER, lambda s: [s.abs_rel]),
    Measure(
        "depth/abs_rel_per_view",
        "depth AbsRel, one scale per view",
        "",
        LOWER,
        lambda s: [s.abs_rel_per_view],
    ),
    Measure("depth/delta", "depth within a factor of 1.25", "share", HIGHER, lambda s: [s.delta]),
    Measure("depth/rmse", "depth RMSE, one scale per scene", "m", LOWER, lambda s: [s.rmse]),
    *(measure for alignment in DepthAlignment for measure in _aligned(alignment)),
    Measure("pose/auc30", "pose AUC@30", "share", HIGHER, lambda s: _auc(s, _folded(s), 30)),
    Measure(
        "pose/auc30_signed",
        "pose AUC@30, opposite translations are wrong",
        "share",
        HIGHER,
        lambda s: _auc(s, _signed(s), 30),
    ),
    Measure("pose/auc15", "pose AUC@15", "share", HIGHER, lambda s: _auc(s, _folded(s), 15)),
    Measure(
        "pose/auc15_signed",
        "pose AUC@15, opposite translations are wrong",
        "share",
        HIGHER,
        lambda s: _auc(s, _signed(s), 15),
    ),
    Measure("pose/auc5", "pose AUC@5", "share", HIGHER, lambda s: _auc(s, _folded(s), 5)),
    Measure(
        "pose/auc5_signed",
        "pose AUC@5, opposite translations are wrong",
        "share",
        HIGHER,
        lambda s: _auc(s, _signed(s), 5),
    ),
    Measure(
        "pose/rra15", "rotations within 15 degrees", "share", HIGHER, lambda s: _below(s.rotation_deg, 15)
    ),
    Measure(
        "pose/rta15", "translations within 15 degrees", "share", HIGHER, lambda s: _below(_folded(s), 15)
    ),
    Measure(
        "pose/rta15_signed",
        "translations within 15 degrees, opposite ones are wrong",
        "share",
        HIGHER,
        lambda s: _below(_signed(s), 15),
    ),
    Measure("pose/rotation_deg", "mean rotation error", "deg", LOWER, lambda s: s.rotation_deg),
    Measure(
        "pose/rotation_median_deg",
        "median rotation error",
        "deg",
        LOWER,
        lambda s: s.rotation_deg,
        Statistic.MEDIAN,
    ),
    Measure(
        "pose/direction_median_deg",
        "median error of translation directions, 0 to 180",
        "deg",
        LOWER,
        lambda s: s.translation_deg,
        Statistic.MEDIAN,
    ),
    Measure("pose/ate", "trajectory error after Sim(3)", "m", LOWER, lambda s: [s.ate]),
    Measure(
        "points/pointwise",
        "points, same pixel, share of the diagonal",
        "share",
        LOWER,
        lambda s: [_share(s.pointwise, s)],
    ),
    Measure(
        "points/accuracy",
        "point accuracy, share of the diagonal",
        "share",
        LOWER,
        lambda s: [_share(s.accuracy, s)],
    ),
    Measure(
        "points/completeness",
        "point completeness, share of the diagonal",
        "share",
        LOWER,
        lambda s: [_share(s.completeness, s)],
    ),
    Measure("points/accuracy_m", "point accuracy", "m", LOWER, lambda s: [s.accuracy]),
    Measure("points/completeness_m", "point completeness", "m", LOWER, lambda s: [s.completeness]),
    Measure("points/normals", "normal consistency", "share", HIGHER, lambda s: [s.normal_consistency]),
    Measure("camera/focal", "focal length, relative error", "", LOWER, lambda s: [s.focal]),
    Measure(
        "camera/focal_median",
        "focal length, median relative error",
        "",
        LOWER,
        lambda s: s.focal_per_view,
        Statistic.MEDIAN,
    ),
)
"""All figures of geometry."""


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
