"""A checkup as Markdown, to paste into an issue."""

from collections.abc import Mapping

from g2vlm.evaluation.checkup.examination import Checkup
from g2vlm.evaluation.checkup.rows import Row

_MARKS = {True: "ok", False: "**other than expected**", None: "nothing to compare with"}


def format_checkup(found: Checkup, facts: Mapping[str, str]) -> str:
    """The whole report.

    Args:
        found: of one checkpoint.
        facts: where it was found: versions, processor, device, precision.
    """
    verdict = "as expected" if found.passed else "NOT as expected"
    lines = [f"### g2vlm doctor: {found.name} is {verdict} ({found.seconds:.0f} s)", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "| | | found | expected | a fault gives |", "|---|---|---|---|---|"]
    lines += [_line(row) for row in found.rows]
    if found.recording is not None:
        lines += ["", "<details><summary>what it computes</summary>", "", "```json"]
        lines += [found.recording.to_json(), "```", "", "</details>"]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    cells = (_MARKS[row.passed], row.subject, row.found, row.expected, row.broken)
    # A bar would end its cell, also inside of code.
    plain = (" ".join(cell.replace("|", "\\|").split()) for cell in cells)
    return f"| {' | '.join(plain)} |"
