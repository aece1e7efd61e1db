"""Reading answers, and judging them: choices exactly, numbers within a tolerance.

Models write "B", "(B) left", "The depth is 2.4 m. Answer: 2.4", "about 240 cm". What is read from an answer
is decided by the rules below and by nothing else; an answer from which nothing can be read counts as wrong.
"""

import math
import re
from collections.abc import Sequence

TOLERANCE = 0.25
"""Relative error up to which a number counts as right."""

MRA_THRESHOLDS = tuple(k / 100 for k in range(50, 100, 5))
"""Confidence thresholds 0.50, 0.55, ..., 0.95 of the mean relative accuracy of VSI-Bench and SPAR-Bench."""

METRES = {
    "m": 1.0, "metre": 1.0, "metres": 1.0, "meter": 1.0, "meters": 1.0,
    "cm": 0.01, "centimetre": 0.01, "centimetres": 0.01, "centimeter": 0.01, "centimeters": 0.01,
    "mm": 0.001, "millimetre": 0.001, "millimetres": 0.001, "millimeter": 0.001, "millimeters": 0.001,
    "km": 1000.0, "kilometre": 1000.0, "kilometres": 1000.0, "kilometer": 1000.0, "kilometers": 1000.0,
    "in": 0.0254, "inch": 0.0254, "inches": 0.0254,
    "ft": 0.3048, "foot": 0.3048, "feet": 0.3048,
}  # fmt: skip
"""Length of each written unit."""

DEGREES = {
    "degree": 1.0, "degrees": 1.0, "deg": 1.0, "°": 1.0,
    "radian": 180 / math.pi, "radians": 180 / math.pi, "rad": 180 / math.pi,
}  # fmt: skip
"""Angle of each written unit."""

_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
    "twenty",
)
_NUMBER = re.compile(
    r"(?<![\w.])(?P<number>[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*(?P<unit>[A-Za-z]+|°)?"
)
_ANSWER = re.compile(r"\b(?:final\s+)?answer\s*(?:is|:|=)+\s*", re.IGNORECASE)


def _conclusion(text: str) -> str:
    """What follows the last "Answer:" of an answer that reasons first, else all of it."""
    marks = list(_ANSWER.finditer(text))
    return text[marks[-1].end() :] if marks else text


def read_choice(text: str, choices: Sequence[str], letters: str = "ABCDEFGHIJ") -> str | None:
    """The letter of the choice that an answer names.

    Read after the last "Answer:" if there is one, in this order: a text that is a letter alone or begins with
    one ("B", "(B)", "B. left", "**B**"); a text that equals a choice, whatever the case; the only letter in
    brackets or before a full stop or colon; the only choice whose text occurs in it.

    Args:
        text: what the model wrote.
        choices: texts of the choices in the order of their letters; may be empty where they are unknown, and
            then any letter counts.
        letters: names of the choices.

    Returns:
        A capital letter, or None where the answer names no choice, or several.
    """
    known = letters[: len(choices)] if choices else letters
    said = _conclusion(text).strip().strip("*_`\"'").strip()
    alone = re.match(rf"\(?([{known}{known.lower()}])(?:[).:,]|\s*$|\*)", said)
    if alone is None:
        # A capital followed by a space is an answer ("B left"), but "A" may be an article.
        alone = re.match(rf"([{known.replace('A', '')}])\s", said) if len(known) > 1 else None
    if alone is not None:
        return alone[1].upper()
    plain = said.rstrip(".!").casefold()
    equal = [letter for letter, choice in zip(known, choices, strict=False) if choice.casefold() == plain]
    if len(equal) == 1:
        return equal[0]
    marked = set(re.findall(rf"(?:\(|\b)([{known}])(?:\)|[.:](?:\s|$))", said))
    if len(marked) == 1:
        return marked.pop()
    inside = [
        letter
        for letter, choice in zip(known, choices, strict=False)
        if re.search(rf"(?<!\w){re.escape(choice.casefold())}(?!\w)", plain)
    ]
    return inside[0] if len(inside) == 1 else None


def read_number(text: str, unit: str | None = None) -> float | None:
    """The number that an answer gives, in the unit that was asked for.

    Read after the last "Answer:" if there is one. Of several numbers the first counts whose unit is of the
    asked kind, else the first one; number words up to twenty count where there are no digits.

    Args:
        text: what the model wrote.
        unit: "metres", "centimetres", "degrees", ... as the question says it; None for a pure number. A unit
            in the answer is converted to it.

    Returns:
        The number, or None where the answer gives none.
    """
    said = _conclusion(text)
    table = next((known for known in (METRES, DEGREES) if unit is not None and unit.lower() in known), None)
    found: list[tuple[float, str]] = []
    for match in _NUMBER.finditer(said):
        digits = match["number"].replace(",", "")
        if any(character.isdigit() for character in digits):
            found.append((float(digits), (match["unit"] or "").lower()))
    if not found:
        words = [word for word in re.findall(r"[a-z]+", said.lower()) if word in _WORDS]
        return float(_WORDS.index(words[0])) if words else None
    if table is None or unit is None:
        return found[0][0]
    value, written = next(((value, name) for value, name in found if name in table), found[0])
    return value * table[written] / table[unit.lower()] if written in table else value


def plain_words(text: str) -> str:
    """A short answer for comparison, without case, articles and punctuation.

    Read in <answer> tags where there are any, else after the last "Answer:".
    """
    tagged = re.findall(r"<answer>(.*?)</answer>", text, re.IGNORECASE | re.DOTALL)
    said = tagged[-1] if tagged else _conclusion(text)
    words = re.findall(r"[\w'-]+", said.casefold())
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def asked_unit(question: str) -> str | None:
    """The unit that a question asks its number in ("... in metres."), None for a pure number."""
    units = re.findall(r"\bin (?:the unit )?([A-Za-z]+)\b", question.lower())
    return next((unit for unit in reversed(units) if unit in METRES or unit in DEGREES), None)


def relative_error(value: int | float | None, true: int | float) -> float:
    """|value - true| / |true|; infinite for no answer, and for a wrong answer where the truth is zero."""
    if value is None or not math.isfinite(value):
        return math.inf
    if true == 0:
        return 0.0 if value == 0 else math.inf
    return abs(value - true) / abs(true)


def is_within(value: int | float | None, true: int | float, tolerance: int | float = TOLERANCE) -> bool:
    """Whether a number is right up to a relative error of `tolerance`, that error included."""
    # Numbers are written with few digits: 1.25 against 1 must not fail by a rounding of the subtraction.
    return relative_error(value, true) <= tolerance + 1e-9


def mean_relative_accuracy(value: int | float | None, true: int | float) -> float:
    """Mean relative accuracy (VSI-Bench, arXiv 2412.14171, equation 1).

    The share of the thresholds 0.50, 0.55, ..., 0.95 at which the relative error lies below one minus the
    threshold: 1 for an error below 5 %, 0 for one of 50 % and more.
    """
    error = relative_error(value, true)
    return sum(error < 1 - threshold - 1e-9 for threshold in MRA_THRESHOLDS) / len(MRA_THRESHOLDS)


_NOT_THERE = re.compile(
    r"\b(?:no|not|none|cannot|nothing|never|unknown|absent|missing|without)\b|n[o']t\b|^0\b|\bzero\b",
    re.IGNORECASE,
)


def says_missing(text: str, word: str) -> bool:
    """Whether an answer says that a thing is not there, or that the model does not know the word for it.

    An answer that gives a length beside is wrong, whatever else it says.

    Args:
        text: what the model wrote.
        word: the thing that was asked about.
    """
    said = _conclusion(text)
    if re.search(r"\d\s*(?:m|cm|metres?|meters?)\b", said):
        return False
    negated = _NOT_THERE.search(said.strip()) is not None
    # "I see no sofa" and a plain "No." are about the thing; "There is no chair" in place of a sofa is not.
    about = word.casefold() in said.casefold() or len(said.split()) <= 3
    return negated and about
