"""Templates with alternatives, and how a sentence is drawn from one."""

import re
from collections.abc import Sequence

from g2vlm.data.questions.phrasing.vocabulary import with_article
from g2vlm.data.world.draws import Draws

_INNERMOST = re.compile(r"\[([^\[\]]*)\]")
_WITH_ARTICLE = re.compile(r"\ba \{(\d)\}")


def drawn_sentence(template: str, names: Sequence[str], draws: Draws) -> str:
    """One of the sentences that a template stands for.

    Args:
        template: text in which "[a|b|]" stands for one of its alternatives (the last one here is empty;
            brackets may be nested) and {0}, {1} for names. A name brings no article; "a {0}" becomes "an" or
            nothing where the name asks for that.
        names: what fills the places.
        draws: source of the choices.

    Returns:
        The sentence with single spaces, beginning with a capital.
    """
    sentence = template
    # From the inside out, so that an alternative may hold alternatives.
    while found := _INNERMOST.search(sentence):
        sentence = sentence[: found.start()] + draws.choice(found[1].split("|")) + sentence[found.end() :]
    sentence = re.sub(r"\s+([?.,!:;])", r"\1", " ".join(sentence.split()))
    sentence = _WITH_ARTICLE.sub(lambda place: with_article(names[int(place[1])]), sentence).format(*names)
    return sentence[:1].upper() + sentence[1:]


def num_sentences(template: str) -> int:
    """How many choices a template offers, equal sentences counted more than once."""
    while found := _INNERMOST.search(template):
        # Alternatives of one bracket add up, brackets side by side multiply: counted on a marked copy.
        total = sum(_weight(option) for option in found[1].split("|"))
        template = f"{template[: found.start()]}\0{total}\0{template[found.end() :]}"
    return _weight(template)


def _weight(text: str) -> int:
    product = 1
    for number in re.findall(r"\0(\d+)\0", text):
        product *= int(number)
    return product
