"""Questions as people ask them, with answers in whole sentences.

Training asks them beside the families, evaluation in held-out words. What is not in sight is answered as
such, and so is a word that names nothing the world has.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from g2vlm.data.questions.observations import Observations
from g2vlm.data.questions.one_view import seen_in
from g2vlm.data.questions.phrasing import sentences
from g2vlm.data.questions.phrasing.grammar import drawn_sentence
from g2vlm.data.questions.phrasing.vocabulary import (
    SYNONYMS,
    UNKNOWN_HELD_OUT,
    UNKNOWN_TRAINING,
    plural_of,
    unknown_words,
    with_article,
)
from g2vlm.data.questions.question import AnswerKind, Question, QuestionFamily, Reference
from g2vlm.data.questions.several_views import countable
from g2vlm.data.world.draws import Draws
from g2vlm.data.world.furniture import CATALOGUE
from g2vlm.data.world.layout import SceneObject
from g2vlm.data.world.photo.nouns import NOUNS

WORLD_NOUNS = frozenset((*CATALOGUE, *NOUNS))
"""Every noun of the world, whatever the assets that it is drawn with."""

_ABSENT_SHARE = 0.25
_UNKNOWN_SHARE = 0.15
_SYNONYM_SHARE = 0.25
_MOST_LISTED = 6
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Maker = Callable[[Observations, Draws, bool], Question | None]


def everyday_question(seen: Observations, draws: Draws, *, held_out: bool = False) -> Question | None:
    """How far something is, whether it is there, how many there are, what is seen, which of two is nearer.

    Args:
        seen: the views.
        draws: source of all choices.
        held_out: ask in words, and for unknown things, that training never uses.

    Returns:
        None where the views do not offer the question that was drawn.
    """
    if draws.chance(_UNKNOWN_SHARE):
        return _unknown(seen, draws, held_out)
    if draws.chance(_ABSENT_SHARE):
        return _absent(seen, draws, held_out)
    return draws.choice(_MAKERS)(seen, draws, held_out)


def missing_question(seen: Observations, draws: Draws, *, held_out: bool = False) -> tuple[Question, str]:
    """A question about something that is not there, or that no word of the world names, and that word."""
    question = draws.choice((_unknown, _absent))(seen, draws, held_out)
    word = question.answer.removeprefix("I do not know the word ").removeprefix("I see no ").removesuffix(".")
    return question, word


def _unknown(seen: Observations, draws: Draws, held_out: bool) -> Question:
    """About something that no word of the world names."""
    word = draws.choice(unknown_words(UNKNOWN_HELD_OUT if held_out else UNKNOWN_TRAINING, WORLD_NOUNS))
    return _question(seen, _asked_about(draws, word, held_out), f"I do not know the word {word}.", ())


def _absent(seen: Observations, draws: Draws, held_out: bool) -> Question:
    """About something that the world has and these views do not."""
    # Somebody who asks for a lamp means a floor lamp too: what ends in the same word is there.
    present = {thing.noun.split()[-1] for thing in seen.objects}
    noun = draws.choice([noun for noun in sorted(WORLD_NOUNS) if noun.split()[-1] not in present])
    return _question(seen, _asked_about(draws, noun, held_out), f"I see no {noun}.", ())


def _asked_about(draws: Draws, noun: str, held_out: bool) -> str:
    """How far it is, whether it is there, or how many there are."""
    kind = draws.choice(("far", "far", "there", "many"))
    if kind == "many":
        return _sentence(sentences.COUNT, (plural_of(noun),), draws, held_out)
    return _sentence(sentences.DISTANCE if kind == "far" else sentences.PRESENCE, (noun,), draws, held_out)


def _distance(seen: Observations, draws: Draws, held_out: bool) -> Question | None:
    thing = _any_named(seen, draws)
    if thing is None:
        return None
    name = _brief_name(seen, thing, draws)
    view, value = _measured(seen, thing)
    places = seen_in(seen.views_showing(thing), thing)
    references = (Reference(name, places), Reference(thing.label, seen_in((view,), thing), value))
    text = _sentence(sentences.DISTANCE, (name,), draws, held_out)
    return _question(seen, text, f"The {thing.label}{value}{_origin(seen, view)}.", references)


def _presence(seen: Observations, draws: Draws, held_out: bool) -> Question | None:
    """Yes, with where it is; what is missing has its own answer."""
    thing = _any_named(seen, draws)
    if thing is None:
        return None
    name = _brief_name(seen, thing, draws)
    view, value = _measured(seen, thing)
    references: tuple[Reference, ...] = (Reference(name, seen_in(seen.views_showing(thing), thing)),)
    text = _sentence(sentences.PRESENCE, (name,), draws, held_out)
    answer = f"Yes, the {thing.label}{value}{_origin(seen, view)}."
    return _question(
        seen, text, answer, (*references, Reference(thing.label, seen_in((view,), thing), value))
    )


def _count(seen: Observations, draws: Draws, held_out: bool) -> Question | None:
    by_noun = countable(seen)
    if not by_noun:
        return None
    noun = draws.choice(sorted(by_noun))
    things = by_noun[noun]
    if len(things) >= len(_NUMBERS):
        return None
    places = tuple(place for thing in things for place in seen_in(seen.views_showing(thing), thing))
    counted = f"{_NUMBERS[len(things)]} {noun if len(things) == 1 else plural_of(noun)}"
    text = _sentence(sentences.COUNT, (plural_of(noun),), draws, held_out)
    return _question(seen, text, f"I see {counted}.", (Reference(plural_of(noun), places),))


def _listing(seen: Observations, draws: Draws, held_out: bool) -> Question | None:
    """The largest things in sight, the largest first."""
    things = [thing for thing in seen.objects if seen.views_showing(thing)]
    if not things:
        return None
    things.sort(key=lambda thing: -int(seen.pixels[:, thing.instance].max()))
    chosen = things[:_MOST_LISTED]
    references = tuple(Reference(thing.label, seen_in(seen.views_showing(thing), thing)) for thing in chosen)
    text = _sentence(sentences.LISTING, (), draws, held_out)
    return _question(
        seen, text, f"I see {_joined([with_article(thing.label) for thing in chosen])}.", references
    )


def _comparison(seen: Observations, draws: Draws, held_out: bool) -> Question | None:
    """Which of two is nearer, in words, with both distances."""
    view = draws.integer((0, seen.num_views - 1))
    things = draws.shuffled(seen.named(view))[:2]
    if len(things) < 2:
        return None
    near, far = sorted(things, key=lambda thing: seen.distance(view, thing))
    lengths = [f" is {seen.distance(view, thing):.1f} m" for thing in (near, far)]
    if lengths[0] == lengths[1]:
        return None
    text = _sentence(sentences.COMPARISON, tuple(thing.label for thing in things), draws, held_out)
    answer = f"The {near.label}{lengths[0]}, the {far.label}{lengths[1]} away. The {near.label} is nearer."
    references = tuple(
        Reference(thing.label, seen_in((view,), thing), length)
        for thing, length in zip((near, far), lengths, strict=True)
    )
    return replace(_question(seen, text, answer, references), views=_all_views(seen))


_MAKERS: tuple[Maker, ...] = (_distance, _distance, _presence, _count, _listing, _comparison)


def _any_named(seen: Observations, draws: Draws) -> SceneObject | None:
    named = {thing.instance: thing for view in range(seen.num_views) for thing in seen.named(view)}
    return draws.choice([named[instance] for instance in sorted(named)]) if named else None


def _brief_name(seen: Observations, thing: SceneObject, draws: Draws) -> str:
    """The noun alone where there is only one, now and then another word for it."""
    alone = len(countable(seen).get(thing.noun, ())) == 1
    noun = thing.noun
    if noun in SYNONYMS and draws.chance(_SYNONYM_SHARE):
        noun = draws.choice(SYNONYMS[noun])
    return noun if alone and draws.chance(0.5) else f"{thing.colour} {noun}"


def _measured(seen: Observations, thing: SceneObject) -> tuple[int, str]:
    """The first view that shows a thing, and how far it is from there, in words."""
    view = seen.views_showing(thing)[0]
    return view, f" is {seen.distance(view, thing):.1f} m"


def _origin(seen: Observations, view: int) -> str:
    return " away" if seen.num_views == 1 else f" from the camera of view {view + 1}"


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _sentence(
    pair: tuple[tuple[str, ...], tuple[str, ...]], names: tuple[str, ...], draws: Draws, held_out: bool
) -> str:
    """One of the sentences of training, or of those that are held out."""
    return drawn_sentence(draws.choice(pair[1 if held_out else 0]), names, draws)


def _all_views(seen: Observations) -> tuple[int, ...]:
    return tuple(range(seen.num_views))


def _question(seen: Observations, text: str, answer: str, references: tuple[Reference, ...]) -> Question:
    return Question(
        family=QuestionFamily.CAMERA_DISTANCE,
        kind=AnswerKind.NUMERIC,
        text=text,
        answer=answer,
        views=_all_views(seen),
        reasoning="",
        references=references,
    )
