"""How the public benchmarks read and score answers, each by its own published rules.

These are as strict, or as lenient, as their authors' code, whose places stand at each function; the general
rules of `metrics.answers` are kinder to free sentences.

"""

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from g2vlm.evaluation.metrics.answers import MRA_THRESHOLDS

if TYPE_CHECKING:
    from g2vlm.evaluation.trials import Item

Judged = tuple[str | None, float]
LETTERS = "ABCDEFGHIJ"
_DIGITS = re.compile(r"(?<!\^)\d+\.\d+|(?<!\^)\d+")
_COUNTS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def inclusive_mra(value: float, true: float) -> float:
    """Mean relative accuracy with the bound included, as VSI-Bench's and SPAR-Bench's code has it.

    The share of thresholds 0.50, ..., 0.95 with |value - true| / |true| <= 1 - threshold; a truth of zero is
    compared by the plain difference.
    """
    error = abs(value - true) / abs(true) if true else abs(value)
    return sum(error <= 1 - threshold + 1e-9 for threshold in MRA_THRESHOLDS) / len(MRA_THRESHOLDS)


def _first_word(answer: str) -> str:
    return answer.strip().split(" ")[0].rstrip(".").strip()


def vsi_choice(answer: str, item: "Item") -> Judged:
    """VSI-Bench: the first word, without a full stop, is the letter (`fuzzy_matching` of its task)."""
    word = _first_word(answer)
    return (word.upper() or None), float(word.lower() == item.truth.lower())


def vsi_number(answer: str, item: "Item") -> Judged:
    """VSI-Bench: the first word as a number, mean relative accuracy; 0 where it is none."""
    try:
        value = float(_first_word(answer))
    except ValueError:
        return None, 0.0
    return f"{value:g}", inclusive_mra(value, float(item.truth))


def spar_choice(answer: str, item: "Item") -> Judged:
    """SPAR-Bench: equal, a part of the truth, or beginning with it (its lmms-eval task, `exact_match`).

    An empty answer, which that code counts as a part of any truth, is wrong here.
    """
    said, truth = answer.strip().lower(), item.truth.lower()
    right = bool(said) and (said == truth or said in truth or said[0] == truth)
    return (said[:1].upper() or None), float(right)


def spar_number(answer: str, item: "Item") -> Judged:
    """SPAR-Bench: the first number of an answer, for several views the last one; mean relative accuracy."""
    found = _DIGITS.findall(answer)
    if not found:
        return None, 0.0
    value = float(found[-1] if item.family.endswith("_mv") else found[0])
    return f"{value:g}", inclusive_mra(value, float(item.truth))


_MOVES = (
    ("move_right", "move_left"),
    ("move_up", "move_down"),
    ("move_forward", "move_backward"),
    ("rotate_right", "rotate_left"),
    ("rotate_up", "rotate_down"),
)


def spar_view_change(answer: str, item: "Item") -> Judged:
    """SPAR-Bench's view_change_infer: five signed moves, the mean of their mean relative accuracies.

    Its code hands the truth over as the prediction: errors are relative to what was answered; so here.
    """
    try:
        said, truth = _moves(answer), _moves(item.truth)
    except ValueError:
        return None, 0.0
    scores = [inclusive_mra(true, given) for given, true in zip(said, truth, strict=True)]
    return ",".join(f"{value:g}" for value in said), sum(scores) / len(scores)


def _moves(text: str) -> list[float]:
    """Signed moves of `move_right:0.3,rotate_left:10`.

    Raises:
        ValueError: it is something else.
    """
    pairs = [entry.split(":") for entry in text.split(",")]
    values = {name.strip(): float(value) for name, value in pairs}
    return [values.get(plus, 0.0) - values.get(minus, 0.0) for plus, minus in _MOVES]


def mindcube_choice(answer: str, item: "Item") -> Judged:
    """MindCube: the last "A." if there is any, else its patterns from strict to loose (`extract_answer`)."""
    letter = _mindcube_letter(answer)
    return letter, float(letter == item.truth)


_MINDCUBE_PATTERNS = (
    r"(?:^|\n)(?:Answer: )?([A-E])(?:\.|$|\s)",
    r"[\*\"]([A-E])[\*\"]",
    r"\bAnswer:?\s*([A-E])\b",
    r"[Mm]y answer is ([A-E])",
    r"answer is ([A-E])",
)


def _mindcube_letter(text: str) -> str | None:
    dotted = re.findall(r"([A-E])\.", text)
    if dotted:
        return str(dotted[-1])
    tagged = re.search(r"<Answer>(.*?)(?:<|$)", text, re.DOTALL)
    if tagged is not None:
        inside = re.findall(r"\b([A-E])\b", tagged[1])
        if inside:
            return str(inside[-1])
    for pattern in _MINDCUBE_PATTERNS:
        found = re.findall(pattern, text)
        if found:
            return str(found[-1])
    loose = [line for line in reversed(text.split("\n")) if re.search(r"\b[A-E]\b", line)]
    return None if not loose else str(re.findall(r"\b([A-E])\b", loose[0])[0])


def omnispatial_choice(answer: str, item: "Item") -> Judged:
    """OmniSpatial, evaluation type `direct`: the first character of the answer."""
    letter = answer.strip().upper()[:1]
    return (letter or None), float(letter == item.truth)


def _ost_answer(raw: str) -> str:
    """OST-Bench's `process_answer`: the answer of a JSON with answer and reason, else the whole text."""
    text = raw.replace("'", '"')
    if "reason" not in text or "answer" not in text:
        said = text
    elif '"answer":' in text:
        said = text.split('"answer":')[1].split('"reason"')[0].split("\n")[0].strip().strip(",").strip()
    elif "answer:" in text:
        said = text.split("answer:")[1].split("reason")[0].split("\n")[0].strip().strip(",").strip()
    else:
        said = ""
    return said.strip('"')


def ost_judgement(answer: str, item: "Item") -> Judged:
    """OST-Bench: the option with the longest common subsequence with the answer."""
    said = _ost_answer(answer).strip().lower()
    lengths = [common_subsequence(said, option.strip().lower()) for option in item.choices]
    letter = LETTERS[lengths.index(max(lengths))]
    return letter, float(letter == item.truth)


def common_subsequence(first: str, second: str) -> int:
    """Length of the longest common subsequence of two texts."""
    row = [0] * (len(second) + 1)
    for a in first:
        before = 0
        for k, b in enumerate(second, start=1):
            before, row[k] = row[k], before + 1 if a == b else max(row[k], row[k - 1])
    return row[-1]


def ost_number(answer: str, item: "Item") -> Judged:
    """OST-Bench: the answer as a number, mean relative accuracy with the bound excluded."""
    try:
        value, true = float(_ost_answer(answer)), float(item.truth)
    except ValueError:
        return None, 0.0
    error = abs(true - value) / abs(true) if true else float(value != true)
    return f"{value:g}", sum(error < 1 - t - 1e-9 for t in MRA_THRESHOLDS) / len(MRA_THRESHOLDS)


def ost_count(answer: str, item: "Item") -> Judged:
    """OST-Bench: the answer as a whole number, or the first number word in it, exactly."""
    said = _ost_answer(answer)
    word = next((count for count, name in enumerate(_COUNTS) if name in said.lower()), None)
    try:
        value = int(said) if word is None else word
    except ValueError:
        return None, 0.0
    return str(value), float(value == int(float(item.truth)))


def read_json(text: str) -> object:
    """A JSON value, or JSON lines as a list of them.

    Raises:
        ValueError: it is neither.
    """
    try:
        return json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]


def lettered(options: Sequence[str]) -> str:
    """Options as lines with letters: "A. left"."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
