"""Questions in other words: the same truth, other words for evaluation, answers in the form asked for."""

import re

import pytest
from asked_rooms import Asked, ask_rooms, chosen

from g2vlm.data.questions.everyday import WORLD_NOUNS, everyday_question
from g2vlm.data.questions.forms import AskForm
from g2vlm.data.questions.observations import Observations
from g2vlm.data.questions.phrasing import sentences, templates
from g2vlm.data.questions.phrasing.grammar import drawn_sentence, num_sentences
from g2vlm.data.questions.phrasing.rephrasing import Phrasing, ReasoningWish, rephrased, with_wish
from g2vlm.data.questions.phrasing.slips import with_slips
from g2vlm.data.questions.phrasing.vocabulary import (
    SYNONYMS,
    UNKNOWN_HELD_OUT,
    UNKNOWN_TRAINING,
    plural_of,
    unknown_words,
    with_article,
)
from g2vlm.data.questions.question import AnswerKind
from g2vlm.data.world.draws import Draws
from g2vlm.data.world.furniture import CATALOGUE
from g2vlm.evaluation.benchmarks.synthetic import SyntheticBenchmark, item_of
from g2vlm.evaluation.records import SceneRecord
from g2vlm.evaluation.summary import question_figures
from g2vlm.evaluation.trials import Item


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    return ask_rooms()


def all_sentences(template: str) -> set[str]:
    found = re.search(r"\[([^\[\]]*)\]", template)
    if found is None:
        return {re.sub(r"\s+([?.,!:;])", r"\1", " ".join(template.split())).lower()}
    before, after = template[: found.start()], template[found.end() :]
    return set().union(*(all_sentences(before + option + after) for option in found[1].split("|")))


def test_nested_alternatives_are_drawn_and_counted() -> None:
    template = "[how [far|near]|where] is [the |]{0} ?"
    drawn = {drawn_sentence(template, ["chair"], Draws(k, 0)) for k in range(200)}
    nouns = ("the chair", "chair")
    assert drawn == {f"{w} is {n}?" for w in ("How far", "How near", "Where") for n in nouns}
    assert num_sentences(template) == 6
    assert num_sentences("plain") == 1


def test_every_form_has_words_for_training_and_others_for_evaluation() -> None:
    for form in AskForm:
        training = [all_sentences(template) for template in templates.TRAINING[form]]
        held_out = [all_sentences(template) for template in templates.HELD_OUT[form]]
        assert not set().union(*training) & set().union(*held_out), form
        assert len(set().union(*training)) >= 5, form
    for name in ("DISTANCE", "PRESENCE", "COUNT", "LISTING", "COMPARISON"):
        training, held_out = getattr(sentences, name)
        assert not set().union(*map(all_sentences, training)) & set().union(*map(all_sentences, held_out))


def test_every_family_can_be_asked_in_other_words(asked: list[Asked]) -> None:
    assert {question.ask is not None for _, question in asked} == {True}
    assert {question.ask.form for _, question in asked if question.ask} == set(AskForm)


@pytest.mark.parametrize("phrasing", [Phrasing.FREE, Phrasing.HELD_OUT])
def test_a_rephrased_question_has_the_same_truth(asked: list[Asked], phrasing: Phrasing) -> None:
    changed = 0
    for k, (_, question) in enumerate(asked):
        other = rephrased(question, phrasing, Draws(k, 7))
        changed += other.text != question.text
        assert (other.views, other.markers, other.choices) == (
            question.views,
            question.markers,
            question.choices,
        )
        if question.choices:
            assert other.answer == question.answer
            said = other.given_answer
            assert said in (other.answer, chosen(question))
            # A choice that is said by its letter must be listed with it.
            if said == other.answer:
                assert other.listed[ord(said) - ord("A")] in other.text
        else:
            scale = 100 if other.unit == "centimetres" else 1
            assert float(other.answer) == pytest.approx(float(question.answer) * scale)
            assert other.answer in other.reasoned_answer.split("Answer: ")[1]
        # What a model should say is judged to be right, with and without its reasoning.
        item = item_of(other)
        for answer in (other.given_answer, other.reasoned_answer):
            assert item.judge(answer, "full").is_right, (other.text, answer)
    assert changed == len(asked)


def test_standard_words_stay_as_they_are(asked: list[Asked]) -> None:
    assert all(rephrased(question, Phrasing.STANDARD, Draws(0, 0)) is question for _, question in asked)


def test_names_survive_slips_and_references_follow_synonyms(asked: list[Asked]) -> None:
    synonyms = 0
    for k, (_, question) in enumerate(asked):
        other = rephrased(question, Phrasing.FREE, Draws(k, 11))
        added = other.references[len(question.references) :]
        synonyms += len(added)
        for reference in added:
            assert reference.name in other.text
            assert reference.places
    assert synonyms > 0


def test_slips_change_a_letter_or_two_outside_of_names() -> None:
    text = "How far is the purple wardrobe from here?"
    slipped = {with_slips(text, ["purple wardrobe"], Draws(k, 0)) for k in range(60)}
    assert len(slipped) > 6
    for other in slipped:
        assert "purple wardrobe" in other
        assert abs(len(other) - len(text)) <= 1
    assert with_slips("A b c", [], Draws(3, 0)) in {"A b c", "a b c"}


def test_wishes_about_reasoning() -> None:
    assert with_wish("How far?", ReasoningWish.UNSAID, Draws(0, 0)) == "How far?"
    asked = {with_wish("", ReasoningWish.ASKED, Draws(k, 0)) for k in range(40)}
    declined = {with_wish("", ReasoningWish.DECLINED, Draws(k, 0)) for k in range(40)}
    assert asked == set(templates.TRIGGERS)
    assert declined == set(templates.BRIEF)


def test_unknown_words_are_neither_known_nor_shared() -> None:
    assert not set(UNKNOWN_TRAINING) & set(UNKNOWN_HELD_OUT)
    assert "couch" not in unknown_words(("couch", "piano"), set(CATALOGUE))
    assert unknown_words(("couch", "piano"), {"piano"}) == ["couch"]
    for words in (UNKNOWN_TRAINING, UNKNOWN_HELD_OUT):
        assert unknown_words(words, set(CATALOGUE)) == list(words)


@pytest.mark.parametrize("held_out", [False, True])
def test_everyday_answers_are_true(asked: list[Asked], held_out: bool) -> None:
    samples = {id(sample): sample for sample, _ in asked}
    kinds = set()
    for k, sample in enumerate([*samples.values()] * 6):
        seen = Observations(sample)
        question = everyday_question(seen, Draws(k, 5), held_out=held_out)
        if question is None:
            continue
        assert question.kind is AnswerKind.NUMERIC
        nouns = {thing.noun for thing in sample.objects}
        if said := re.fullmatch(r"I do not know the word (.+)\.", question.answer):
            kinds.add("unknown")
            assert said[1] not in nouns
            assert said[1] in (UNKNOWN_HELD_OUT if held_out else UNKNOWN_TRAINING)
        elif said := re.fullmatch(r"I see no (.+)\.", question.answer):
            kinds.add("absent")
            assert said[1] in WORLD_NOUNS
            assert not any(said[1].split()[-1] == noun.split()[-1] for noun in nouns)
        elif question.answer.startswith("Yes, "):
            kinds.add("there")
        elif " is nearer." in question.answer:
            kinds.add("nearer")
            lengths = [float(number) for number in re.findall(r"is (\d+\.\d) m", question.answer)]
            assert lengths == sorted(lengths)
            assert question.answer.endswith(
                f"The {re.match(r'The (.+?) is ', question.answer)[1]} is nearer."
            )
        elif question.answer.startswith(("I see a ", "I see an ")):
            kinds.add("list")
            for label in re.split(r", | and ", question.answer.removeprefix("I see ").removesuffix(".")):
                thing = next(t for t in sample.objects if with_article(t.label) == label)
                assert seen.views_showing(thing)
        elif question.answer.startswith("I see "):
            kinds.add("count")
        else:
            kinds.add("far")
    assert kinds == {"unknown", "absent", "there", "nearer", "list", "count", "far"}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("I see no sofa.", True),
        ("There isn't a sofa here.", True),
        ("No.", True),
        ("I do not know the word sofa.", True),
        ("The sofa is 2.1 m away.", False),
        ("I see no sofa. The bed is 2.0 m away.", False),
        ("I see no chair in the room.", False),
        ("", False),
    ],
)
def test_saying_that_something_is_missing(answer: str, right: bool) -> None:
    item = Item(family="missing", text="How far is the sofa?", truth="", is_choice=False, missing="sofa")
    record = item.judge(answer, "full")
    assert (record.is_right, record.is_missing) == (right, True)


def test_questions_about_what_is_missing_are_asked_and_counted() -> None:
    benchmark = SyntheticBenchmark(56, 14, num_scenes=1, num_questions=0, num_missing=4)
    (group,) = benchmark.load(benchmark.scenes()[0]).groups
    assert len(group.items) == 4
    told = tuple(item.judge(item.truth, "full") for item in group.items)
    figures = {figure.key: figure for figure in question_figures([SceneRecord("1", answers=told)] * 2)}
    assert figures["questions/missing/full"].value == 1
    assert figures["questions/missing/guess"].value == 0
    assert "questions/numbers/full" not in figures


@pytest.mark.parametrize(
    ("name", "several", "introduced"),
    [
        ("armchair", "armchairs", "an armchair"),
        ("orange bed", "orange beds", "an orange bed"),
        ("unicorn", "unicorns", "a unicorn"),
        ("bookshelf", "bookshelves", "a bookshelf"),
        ("woman", "women", "a woman"),
        ("toilet brush", "toilet brushes", "a toilet brush"),
        ("bench", "benches", "a bench"),
        ("red flowers", "red flowers", "red flowers"),
    ],
)
def test_one_and_several_of_a_thing(name: str, several: str, introduced: str) -> None:
    assert plural_of(name) == several
    assert with_article(name) == introduced
    assert introduced in drawn_sentence("do you see a {0}?", [name], Draws(0, 0))


def test_no_word_of_the_world_is_called_unknown() -> None:
    known = {*WORLD_NOUNS, *(other for noun in WORLD_NOUNS for other in SYNONYMS.get(noun, ()))}
    for words in (UNKNOWN_TRAINING, UNKNOWN_HELD_OUT):
        left = unknown_words(words, WORLD_NOUNS)
        assert not known & set(left)
        assert len(left) >= 20
