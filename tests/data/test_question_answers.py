"""What answers say besides their letter: reasoning, counted views, whole sentences."""

import collections
import math
import re

import pytest
from asked_rooms import Asked, ask_rooms, chosen, of_family

from g2vlm.data.questions.everyday import everyday_question
from g2vlm.data.questions.observations import Observations
from g2vlm.data.questions.question import QuestionFamily, renumbered
from g2vlm.data.world.draws import Draws


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    return ask_rooms()


def test_conclusions_follow_from_one_item_of_a_list(asked: list[Asked]) -> None:
    listing = (QuestionFamily.DEPTH_ORDER, QuestionFamily.SIZE_COMPARISON, QuestionFamily.CORRESPONDENCE)
    places = []
    for _, question in of_family(asked, *listing):
        colour = chosen(question).removeprefix("the ").removesuffix(" one")
        assert question.decides.startswith(f"{colour} ")
        listed, conclusion = question.reasoning.split(" So it is ")
        assert question.decides in listed
        assert conclusion == f"{chosen(question)}."
        words = [marker.colour.word for marker in question.markers]
        places.append(sorted(words, key=listed.rindex).index(colour))
    # Where the item stands gives nothing away.
    assert max(collections.Counter(places).values()) < 0.5 * len(places)


def test_correspondences_list_the_places_of_points_for_the_first_view(asked: list[Asked]) -> None:
    for sample, question in of_family(asked, QuestionFamily.CORRESPONDENCE):
        pose = sample.T_world_camera[question.views[0]].double()
        for marker in question.markers:
            point = sample.points_world[marker.view, marker.v, marker.u].double()
            x, _, z = (pose[:3, :3].T @ (point - pose[:3, 3])).tolist()
            said = re.search(rf"{marker.colour.word} (\S+) m (left|right) at (\S+) m", question.reasoning)
            assert said is not None
            assert float(said[1]) * (-1 if said[2] == "left" else 1) == pytest.approx(x, abs=0.06)
            assert float(said[3]) == pytest.approx(z, abs=0.06)


def test_views_can_be_counted_in_the_order_of_the_sample(asked: list[Asked]) -> None:
    unordered = 0
    for _, question in of_family(asked, QuestionFamily.WHICH_VIEW):
        same = renumbered(question)
        unordered += same.views != question.views
        assert same.views == tuple(sorted(question.views))
        shown, before = (q.views[int(chosen(q).removeprefix("view ")) - 1] for q in (same, question))
        assert shown == before
        assert same.reasoning.endswith(f"So it is {chosen(same)}.")
        for reference in same.references:
            if reference.name.startswith("view "):
                assert {same.views[int(reference.name[5:]) - 1]} == {place.view for place in reference.places}
    assert unordered > 0


def test_everyday_questions_are_answered_in_sentences(asked: list[Asked]) -> None:
    samples = {id(sample): sample for sample, _ in asked}
    absent = 0
    for k, sample in enumerate(samples.values()):
        question = everyday_question(Observations(sample), Draws(k, 0))
        assert question is not None
        if question.answer.startswith("I see no "):
            absent += 1
            noun = question.answer.removeprefix("I see no ").removesuffix(".")
            assert noun in question.text
            assert noun not in {thing.noun for thing in sample.objects}
            continue
        said = re.fullmatch(r"The (.+) is (\d+\.\d) m from the camera of view (\d)\.", question.answer)
        assert said is not None
        (thing,) = (thing for thing in sample.objects if thing.label == said[1])
        assert thing.noun in question.text
        view = int(said[3]) - 1
        assert (sample.instance[view] == thing.instance).any()
        distance = math.dist(sample.T_world_camera[view, :3, 3].tolist(), thing.centre_m)
        assert float(said[2]) == pytest.approx(distance, abs=0.051)
    assert 0 < absent < len(samples)
