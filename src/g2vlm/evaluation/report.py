"""Results as Markdown tables."""

from collections.abc import Sequence

from g2vlm.errors import InputError
from g2vlm.evaluation.results import EvaluationResult, Figure
from g2vlm.evaluation.summary import strongest_blind

_ROOMS = ("depth", "pose", "points", "camera")
_SUMMED = ("choices", "numbers", "numbers_mra", "multi_view", "all", "unread")


def format_report(results: Sequence[EvaluationResult], gains: Sequence[Figure] = ()) -> str:
    """One result in full, or several side by side.

    Args:
        results: in the order of the columns.
        gains: of two results, what the second has more than the first (`summary.differences`).

    Raises:
        InputError: no results.
    """
    if not results:
        raise InputError("Expected at least one result to report, got none: name the JSON files.")
    return format_result(results[0]) if len(results) == 1 else format_comparison(results, gains)


def format_result(result: EvaluationResult) -> str:
    """All tables of one result."""
    geometry = format_comparisons(result) if result.comparisons else _geometry(result)
    parts = [_heading(result), geometry, _scores(result), _questions(result), _families(result)]
    parts += [_gains(result), _published(result)]
    return "\n\n".join(part for part in parts if part) + "\n"


def format_comparisons(result: EvaluationResult) -> str:
    """The model beside simpler methods: one table for each part of the scenes, one column for each method."""
    tables: list[str] = []
    for part in dict.fromkeys(one.part for one in result.comparisons):
        chosen = [one for one in result.comparisons if one.part == part]
        keys = {figure.key: figure for one in chosen for figure in one.figures if _is_shown(figure.key)}
        rows = []
        for key, first in keys.items():
            found = [next((f for f in one.figures if f.key == key), None) for one in chosen]
            most = max(figure.num_items for figure in found if figure is not None)
            cells = ["" if figure is None else _short(figure, most) for figure in found]
            rows.append([_spoken_label(first), *cells, f"{most:,}"])
        head = part or ("all sets" if len(tables) > 1 else "geometry")
        tables.append(_table([head, *(one.method for one in chosen), "over"], rows))
    return "\n\n".join(tables)


_LEFT_OUT = (
    "points/accuracy",
    "points/completeness",
    "points/pointwise",
    "pose/rotation_deg",
    "camera/focal",
)
"""Figures that another one of the same table says better."""


def _is_shown(key: str) -> bool:
    folded = key in ("pose/auc30", "pose/auc15", "pose/auc5", "pose/rta15")
    return not folded and key not in _LEFT_OUT


def _spoken_label(figure: Figure) -> str:
    label = figure.label.split(", opposite")[0]
    unit = figure.unit if figure.unit in ("m", "deg") else "%" if _is_percent(figure) else ""
    return f"{label}, {unit}" if unit else label


def _short(figure: Figure, most: int) -> str:
    """`0.260 ± 0.031`, with the number of items where it differs from the other methods'."""
    percent = _is_percent(figure)
    half = (figure.high - figure.low) / 2
    counted = "" if figure.num_items == most else f" ({figure.num_items:,})"
    return f"{_number(figure.value, percent)} ± {_number(half, percent)}{counted}"


def format_comparison(results: Sequence[EvaluationResult], gains: Sequence[Figure] = ()) -> str:
    """One column for each result, one row for each figure that any of them has (families left out)."""
    keys = dict.fromkeys(
        figure.key
        for result in results
        for figure in result.figures
        if figure.key.split("/", 1)[0] not in ("families",)
    )
    head = [f"{result.checkpoint.name} ({result.checkpoint.fingerprint[:8]})" for result in results]
    rows = []
    for key in keys:
        figures = [result.figure(key) for result in results]
        label = next(figure.label for figure in figures if figure is not None)
        rows.append([label, *("" if figure is None else with_bar(figure) for figure in figures)])
    lines = [f"- {name}: {_conditions(result)}" for name, result in zip(head, results, strict=True)]
    lines += ["", _table(["", *head], rows)]
    if gains:
        spoken = [
            [gain.label, with_bar(gain).replace(" %", " points"), str(gain.num_scenes)] for gain in gains
        ]
        lines += ["", _table(["second over first", "difference (95 % interval)", "scenes"], spoken)]
    return "\n".join(lines) + "\n"


def with_bar(figure: Figure) -> str:
    """Value and 95 % interval: `0.123 (0.110 to 0.137)`, shares in percent."""
    percent = _is_percent(figure)
    numbers = [_number(value, percent) for value in (figure.value, figure.low, figure.high)]
    return f"{numbers[0]} ({numbers[1]} to {numbers[2]}){_unit(figure, percent)}"


def _is_percent(figure: Figure) -> bool:
    return figure.unit == "share" and not figure.key.startswith("points/")


def _number(value: float, percent: bool) -> str:
    if percent:
        return f"{100 * value:.1f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _unit(figure: Figure, percent: bool) -> str:
    if percent:
        return " %"
    return f" {figure.unit}" if figure.unit in ("m", "deg") else ""


def _heading(result: EvaluationResult) -> str:
    seen = result.settings.get("seen_in_training", [])
    warning = (
        f"\nATTENTION: trained on {len(seen)} of these scenes, by the checkpoint's own record" if seen else ""
    )
    failed = f"; geometry failed on {len(result.failures)}" if result.failures else ""
    return (
        "\n".join(
            [
                f"{result.task}: {result.checkpoint.name} ({result.checkpoint.fingerprint})",
                f"{_conditions(result)}{failed}; g2vlm {result.package_version}, {result.date[:10]}, "
                f"{result.seconds:.0f} s",
            ]
        )
        + warning
    )


def _conditions(result: EvaluationResult) -> str:
    settings = result.settings
    views = f" of {settings['num_views']} views" if settings.get("num_views") else ""
    size = f" at {settings['width']}x{settings['height']}" if "height" in settings else ""
    seeds = f", seeds from {settings['first_seed']}" if "first_seed" in settings else ""
    how = ", ".join(str(settings[key]) for key in ("view_attention", "dtype") if key in settings)
    return f"{result.num_scenes} scenes{views}{size}{seeds}" + (f"; {how}" if how else "")


def _geometry(result: EvaluationResult) -> str:
    figures = [figure for figure in result.figures if figure.key.split("/", 1)[0] in _ROOMS]
    if not figures:
        return ""
    return _table(
        ["geometry", "value (95 % interval)", "over"],
        [[figure.label, with_bar(figure), f"{figure.num_items:,}"] for figure in figures],
    )


def _questions(result: EvaluationResult) -> str:
    names = _sights(result)
    rows = []
    for group in _SUMMED:
        figures = [result.figure(f"questions/{group}/{name}") for name in names]
        if any(figures):
            first = next(figure for figure in figures if figure is not None)
            label = first.label.rsplit(" (", 1)[0]
            rows.append([label, *map(_cell, figures), f"{first.num_items:,}"])
    return _table(["questions", *names, "over"], rows) if rows else ""


def _scores(result: EvaluationResult) -> str:
    """The figures that the benchmark itself publishes."""
    found = [figure for figure in result.figures if figure.key.startswith("score/")]
    names = list(dict.fromkeys(figure.key.split("/")[2] for figure in found))
    rows = []
    for key in dict.fromkeys(figure.key.split("/")[1] for figure in found):
        figures = [result.figure(f"score/{key}/{name}") for name in names]
        first = next(figure for figure in figures if figure is not None)
        rows.append([first.label.rsplit(" (", 1)[0], *map(_cell, figures), f"{first.num_items:,}"])
    return _table(["as published", *names, "over"], rows) if rows else ""


def _published(result: EvaluationResult) -> str:
    """What others report, beside ours; the sources below the table."""
    methods = list(dict.fromkeys(one.method for one in result.published))
    values = {(one.method, one.key): one.value for one in result.published}
    rows = []
    for key in dict.fromkeys(one.key for one in result.published):
        ours = result.figure(key)
        if ours is None:
            continue
        percent = _is_percent(ours)
        others = [values.get((method, key)) for method in methods]
        cells = ["" if value is None else _number(value, percent) for value in others]
        rows.append([_spoken_label(ours), _number(ours.value, percent), *cells])
    if not rows:
        return ""
    sources = dict.fromkeys(one.source for one in result.published)
    told = "\n".join(f"- {source}" for source in sources)
    drawn = _table(["published", result.checkpoint.name, *methods], rows)
    return f"{drawn}\n\nPublished figures are from\n{told}"


def _families(result: EvaluationResult) -> str:
    names = _sights(result)
    kinds = dict.fromkeys(
        tuple(figure.key.split("/")[1:3]) for figure in result.figures if figure.key.startswith("families/")
    )
    rows = []
    for family, kind in kinds:
        figures = [result.figure(f"families/{family}/{kind}/{name}") for name in names]
        count = next(figure.num_items for figure in figures if figure is not None)
        rows.append([f"{family}, {kind}", *map(_cell, figures), f"{count:,}"])
    return _table(["family", *names, "over"], rows) if rows else ""


def _gains(result: EvaluationResult) -> str:
    rows = []
    for group in ("choices", "numbers", "multi_view", "all"):
        blind = strongest_blind(result.figures, group)
        for name in dict.fromkeys(("no_geometry", blind)):
            figure = result.figure(f"gain/{group}/{name}")
            if figure is not None:
                label = f"{figure.label.split(':')[0]}: full over {_spoken(name, blind)}"
                rows.append([label, with_bar(figure).replace(" %", " points")])
    return _table(["gain", "difference (95 % interval)"], rows) if rows else ""


def _spoken(name: str | None, blind: str | None) -> str:
    return f"the best blind one ({name})" if name == blind else "no geometric tokens"


def _sights(result: EvaluationResult) -> list[str]:
    keys = [figure.key.split("/") for figure in result.figures if figure.key.startswith("questions/")]
    return list(dict.fromkeys(key[2] for key in keys))


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    half = 100 * (figure.high - figure.low) / 2
    return f"{100 * figure.value:.1f} ± {half:.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to one width, so that the source reads as well as the page."""
    lines = [list(head), *map(list, rows)]
    widths = [max(3, *(len(line[k]) for line in lines)) for k in range(len(head))]

    def draw(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * width if k == 0 else "-" * (width - 1) + ":") for k, width in enumerate(widths)]
    return "\n".join([draw(lines[0]), draw(rule), *map(draw, lines[1:])])
