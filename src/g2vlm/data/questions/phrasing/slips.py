"""Slips of the keyboard, outside of the words that a question is about."""

import re
from collections.abc import Sequence

from g2vlm.data.world.draws import Draws

_LEAST_LETTERS = 4


def with_slips(text: str, kept: Sequence[str], draws: Draws) -> str:
    """A text as somebody types it in a hurry: a letter lost, doubled or swapped, no capitals, no full stop.

    Args:
        text: the question.
        kept: words and phrases that stay as they are, such as names of things.
        draws: source of the slips.
    """
    slip = draws.choice((_lower, _no_end, _in_a_word, _in_a_word))
    return slip(text, kept, draws)


def _lower(text: str, kept: Sequence[str], draws: Draws) -> str:
    # Letters of choices are answers: "A" must stay "A".
    return text[:1].lower() + text[1:]


def _no_end(text: str, kept: Sequence[str], draws: Draws) -> str:
    return text.rstrip("?.! ")


def _in_a_word(text: str, kept: Sequence[str], draws: Draws) -> str:
    spans = [match.span() for phrase in kept if phrase for match in re.finditer(re.escape(phrase), text)]
    words = [
        match.span()
        for match in re.finditer(rf"[a-z]{{{_LEAST_LETTERS},}}", text)
        if not any(match.start() < end and start < match.end() for start, end in spans)
    ]
    if not words:
        return text
    start, end = draws.choice(words)
    at = draws.integer((start + 1, end - 2))
    kind = draws.integer((0, 2))
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at] + text[at:]
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
