"""Results as pictures: figures with error bars, and errors of pairs as curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from g2vlm.errors import MissingExtraError
from g2vlm.evaluation.results import EvaluationResult, Figure
from g2vlm.scene.writing import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_ROOMS = {"depth": "depth", "pose": "poses", "points": "points", "score": "scores", "questions": "questions"}
_ROW_INCHES = 0.32


def write_plots(result: EvaluationResult, folder: Path) -> list[Path]:
    """One PNG for each kind of figure: our value with its 95 % interval, simpler methods, published ones.

    Args:
        result: of one evaluation.
        folder: made if needed.

    Returns:
        The files written; kinds without figures are left out.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputError: the folder cannot be written.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Drawing plots", "bench") from error
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for room, title in _ROOMS.items():
        chosen = [
            figure for figure in result.figures if figure.key.split("/")[0] == room and figure.unit != "m"
        ]
        if chosen:
            path = folder / f"{title}.png"
            with atomic_path(path) as temporary:
                _draw(result, chosen, title).savefig(temporary, format="png", dpi=120)
            written.append(path)
    return written


def _draw(result: EvaluationResult, figures: Sequence[Figure], title: str) -> "Canvas":
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 1.2 + _ROW_INCHES * len(figures)), layout="constrained")
    axes = canvas.subplots()
    rows = range(len(figures))
    values = [figure.value for figure in figures]
    # An interval of a median need not hold the median of all: matplotlib takes no negative lengths.
    bars = [
        [max(0.0, figure.value - figure.low) for figure in figures],
        [max(0.0, figure.high - figure.value) for figure in figures],
    ]
    axes.errorbar(values, rows, xerr=bars, fmt="o", capsize=3, label=result.checkpoint.name)
    for method, found in _others(result, figures).items():
        axes.plot(list(found.values()), list(found), "x", label=method)
    axes.set_yticks(rows, [f"{figure.label} ({figure.better.value})" for figure in figures], fontsize=7)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_title(f"{result.task}, {title}: {result.num_scenes} scenes", fontsize=9)
    axes.legend(fontsize=7)
    return canvas


def _others(result: EvaluationResult, figures: Sequence[Figure]) -> dict[str, dict[int, float]]:
    """Rows and values of other methods."""
    row = {figure.key: k for k, figure in enumerate(figures)}
    found: dict[str, dict[int, float]] = {}
    parts = {one.part for one in result.comparisons}
    whole = "" if "" in parts else next(iter(parts), "")
    for one in result.comparisons:
        if one.part == whole and one.method != result.checkpoint.name:
            known = {row[figure.key]: figure.value for figure in one.figures if figure.key in row}
            if known:
                found[one.method] = known
    for published in result.published:
        if published.key in row:
            found.setdefault(f"{published.method}, published", {})[row[published.key]] = published.value
    return found
