"""What answers say besides their letter: reasoning, counted views, whole sentences."""

import collections
import re

import pytest
from asked_rooms import Asked, ask_rooms, chosen, of_family

from g2vlm.data.questions.question import QuestionFamily, renumbered


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
