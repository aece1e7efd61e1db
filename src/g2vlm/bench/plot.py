"""A picture of a report: seconds beside their limits, fractions reached, memory against views."""

import re
from pathlib import Path
from typing import Any

from g2vlm.bench.results import Report
from g2vlm.errors import InputError, MissingExtraError, OutputError
from g2vlm.scene.writing import atomic_path, check_file

OWN, LIMIT, OTHER = "#1f6fb4", "#999999", "#c8662b"


def check_plot(path: Path) -> None:
    """Make sure, before measuring, that a picture can be drawn and written.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputError: the file cannot be written, or its ending names no format.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise MissingExtraError("Plotting", "bench") from error
    known = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in known:
        raise OutputError(
            f"Expected a picture ending in one of {', '.join(sorted(known))}, got {str(path)!r}."
        )
    check_file(path)


def write_plot(report: Report, path: Path) -> None:
    """Draw a report.

    Args:
        report: with figures on reconstruction, memory or fractions; what is missing leaves its panel out.
        path: the file; its ending chooses the format (.png, .svg, .pdf).

    Raises:
        InputError: the report has nothing to draw.
        MissingExtraError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    check_plot(path)
    from matplotlib.figure import Figure as Canvas

    panels = [panel for panel in (_seconds, _fractions, _memory) if panel(report, None)]
    if not panels:
        raise InputError(
            "Expected figures on reconstruction, memory or fractions of a limit to plot, got none: "
            "measure more sections."
        )
    canvas: Any = Canvas(figsize=(5.5 * len(panels), 4.2), layout="constrained")
    for axes, panel in zip(canvas.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        panel(report, axes)
    canvas.suptitle(
        f"g2vlm bench: {report.preset}, {report.dtype}, {report.machine.device}, {report.date[:10]}"
    )
    with atomic_path(path) as temporary:
        canvas.savefig(temporary, dpi=150)


def _matching(report: Report, pattern: str) -> dict[int, Any]:
    found = ((re.fullmatch(pattern, figure.key), figure) for figure in report.figures)
    return dict(sorted((int(match[1]), figure) for match, figure in found if match))


def _seconds(report: Report, axes: Any) -> bool:
    figures = _matching(report, r"reconstruct/(\d+)/forward")
    if axes is None or not figures:
        return bool(figures)
    views = list(figures)
    axes.loglog(views, [figure.value for figure in figures.values()], "o-", color=OWN, label="forward pass")
    limits = [figure.limit or float("nan") for figure in figures.values()]
    axes.loglog(views, limits, "s--", color=LIMIT, label="limit of the machine")
    axes.set(xlabel="views", ylabel="seconds", title="Reconstruction", xticks=views)
    axes.set_xticklabels([str(count) for count in views])
    axes.legend()
    return True


def _fractions(report: Report, axes: Any) -> bool:
    figures = [figure for figure in report.figures if figure.fraction is not None]
    if axes is None or not figures:
        return bool(figures)
    colours = [OTHER if "transformers" in figure.key else OWN for figure in figures]
    fractions = [figure.fraction or 0.0 for figure in figures]
    axes.barh([figure.key for figure in figures], fractions, color=colours)
    axes.axvline(1.0, color=LIMIT, linestyle="--")
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=7)
    axes.set(xlabel="fraction of the limit", title="Reached")
    return True


def _memory(report: Report, axes: Any) -> bool:
    kinds = {kind: _matching(report, rf"memory/{kind}/(\d+)/peak") for kind in ("reconstruct", "perceive")}
    if axes is None or not any(kinds.values()):
        return any(kinds.values())
    for (kind, figures), colour in zip(kinds.items(), (OWN, OTHER), strict=True):
        axes.plot(
            list(figures), [figure.value for figure in figures.values()], "o-", color=colour, label=kind
        )
    axes.set(xlabel="views", ylabel="MB beyond weights and scene", title="Peak memory", ylim=(0, None))
    axes.legend()
    return True
