"""A question in other words, with its answer in the form that these words ask for."""

import re
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

from g2vlm.data.questions.phrasing import templates
from g2vlm.data.questions.phrasing.grammar import drawn_sentence
from g2vlm.data.questions.phrasing.slips import with_slips
from g2vlm.data.questions.phrasing.vocabulary import SYNONYMS
from g2vlm.data.questions.question import LETTERS, Question, Reference
from g2vlm.data.world.draws import Draws

_SLIP_SHARE = 0.15
_SYNONYM_SHARE = 0.3
_CENTIMETRE_SHARE = 0.15


class Phrasing(Enum):
    """In whose words questions are asked."""

    STANDARD = "standard"
    """The few sentences of the benchmark."""
    FREE = "free"
    """Drawn from the training templates, with courtesies, synonyms, slips, and choices in many forms."""
    HELD_OUT = "held_out"
    """Drawn from templates that no training uses; without slips."""


class ReasoningWish(Enum):
    """What a question says about reasoning."""

    ASKED = "asked"
    """The answer should state what was measured before it concludes."""
    UNSAID = "unsaid"
    """Nothing: the model decides, and training teaches it to state what it measured."""
    DECLINED = "declined"
    """Only the answer is wanted."""


def rephrased(question: Question, phrasing: Phrasing, draws: Draws) -> Question:
    """The same question in drawn words.

    Choices are listed in drawn forms, with letters or as words; numbers are asked for in their unit or, for
    lengths, in centimetres. The true answer follows: `answer` stays the letter or the number in the unit that
    the question asks for, `given_answer` is what a model should say.
    """
    if phrasing is Phrasing.STANDARD or question.ask is None:
        return question
    held_out = phrasing is Phrasing.HELD_OUT
    names, references = _renamed(question, draws, held_out)
    stems = (templates.HELD_OUT if held_out else templates.TRAINING)[question.ask.form]
    stem = drawn_sentence(draws.choice(stems), names, draws)
    opening = draws.choice(templates.HELD_OUT_OPENINGS if held_out else templates.OPENINGS)
    if opening:
        stem = opening[:1].upper() + opening[1:] + stem[:1].lower() + stem[1:]
    asked = (
        _with_choices(question, stem, draws)
        if question.choices
        else _with_unit(question, stem, draws, held_out)
    )
    text = asked.text + draws.choice(templates.HELD_OUT_CLOSINGS if held_out else templates.CLOSINGS)
    kept = [*names, *asked.listed, *question.choices, asked.unit, "view"]
    if not held_out and draws.chance(_SLIP_SHARE):
        text = with_slips(text, kept, draws)
    return replace(asked, text=text, references=references)


def with_wish(text: str, wish: ReasoningWish, draws: Draws) -> str:
    """A question's text with what it says about reasoning."""
    if wish is ReasoningWish.UNSAID:
        return text
    return text + draws.choice(templates.TRIGGERS if wish is ReasoningWish.ASKED else templates.BRIEF)


def _renamed(
    question: Question, draws: Draws, held_out: bool
) -> tuple[tuple[str, ...], tuple[Reference, ...]]:
    """Names with synonyms here and there, and references that know them.

    Reasoning keeps the first word, so a synonym's reference stands beside the old one.
    """
    assert question.ask is not None
    names, more = [], []
    for name in question.ask.names:
        other = _synonym(name, draws) if draws.chance(_SYNONYM_SHARE) and not held_out else None
        names.append(other or name)
        places = next((ref.places for ref in question.references if ref.name == name), None)
        if other and places is not None:
            more.append(Reference(other, places))
    return tuple(names), (*question.references, *more)


def _synonym(name: str, draws: Draws) -> str | None:
    """The name with its noun exchanged; None where the noun has no other word."""
    for noun, others in SYNONYMS.items():
        if name == noun or name.endswith(f" {noun}"):
            return name.removesuffix(noun) + draws.choice(others)
    return None


def _with_choices(question: Question, stem: str, draws: Draws) -> Question:
    """Choices behind the stem: with letters in some form, or as words."""
    choices = question.choices
    index = LETTERS.index(question.answer)
    by_letter = draws.chance(0.6)
    if not by_letter:
        # Where the stem names both alternatives already, nothing need be listed.
        binary = len(choices) == 2 and all(re.search(rf"\b{re.escape(c)}\b", stem) for c in choices)
        text = stem if binary and draws.chance(0.7) else f"{stem} {_as_words(choices, draws)}"
        said = choices[index]
        return replace(question, text=text + draws.choice(templates.WORD_REQUESTS), said=said, listed=choices)
    form = draws.choice(("{0}. {1}", "{0}) {1}", "({0}) {1}", "{0}: {1}"))
    listed = tuple(form.format(LETTERS[k], choice) for k, choice in enumerate(choices))
    between = draws.choice((" ", " ", ", ", "\n"))
    start = "\n" if between == "\n" else draws.choice((" ", " ", " Choices: ", " Options: "))
    text = stem + start + between.join(listed) + draws.choice(templates.LETTER_REQUESTS)
    return replace(question, text=text, listed=listed)


def _as_words(choices: Sequence[str], draws: Draws) -> str:
    joined = ", ".join(choices[:-1]) + f" or {choices[-1]}"
    return draws.choice(
        (f"({joined})", f"{joined[:1].upper()}{joined[1:]}?", f"Choose from: {', '.join(choices)}.")
    )


def _with_unit(question: Question, stem: str, draws: Draws, held_out: bool) -> Question:
    """A number asked for in a unit; without one it is meant in the usual unit."""
    if not question.unit:
        return replace(question, text=stem)
    unit, answer, reasoning = question.unit, question.answer, question.reasoning
    if unit == "metres" and not held_out and draws.chance(_CENTIMETRE_SHARE):
        unit, answer = "centimetres", f"{float(answer) * 100:.0f}"
        reasoning = f"{reasoning} That is {answer} cm."
    requests = templates.HELD_OUT_UNIT_REQUESTS if held_out else templates.UNIT_REQUESTS
    silent = unit == question.unit and draws.chance(0.3)
    request = "" if silent else draws.choice(requests).format(unit)
    said = "" if not silent else f"{answer} {'m' if unit == 'metres' else unit}"
    return replace(question, text=stem + request, answer=answer, reasoning=reasoning, unit=unit, said=said)
