"""Questions: answers checked against independent measurements, balance, markers."""

import collections
import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from asked_rooms import Asked, ask_rooms, chosen, of_family

from g2vlm.data.questions.making import MAKERS, make_questions
from g2vlm.data.questions.markers import draw_markers
from g2vlm.data.questions.question import (
    AnswerKind,
    Marker,
    MarkerColour,
    Question,
    QuestionFamily,
)
from g2vlm.data.samples import SceneSample
from g2vlm.data.synthetic import ViewShape, render_batch
from g2vlm.data.world.config import full_world
from g2vlm.data.world.layout import SceneObject, make_room
from g2vlm.errors import InputError


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    return ask_rooms()


def named(sample: SceneSample, text: str) -> list[SceneObject]:
    """Objects whose label stands in a text, in the order of the text."""
    found = [(text.find(f" {thing.label}"), thing) for thing in sample.objects if f" {thing.label}" in text]
    # "box" stands in "box" only: a label that is part of a longer one at the same place is not meant.
    longest = dict(sorted(found, key=lambda pair: len(pair[1].label)))
    return [longest[at] for at in sorted(longest)]


def stem(question: Question) -> str:
    return re.split(r" A\. | Answer with", question.text)[0]


def right_number(question: Question) -> float:
    text = question.answer if question.kind is AnswerKind.NUMERIC else chosen(question).split()[0]
    return float(text)


def seen_point(sample: SceneSample, marker: Marker) -> torch.Tensor:
    return sample.points_world[marker.view, marker.v, marker.u]


def camera_coordinates(sample: SceneSample, view: int, point: tuple[float, float, float]) -> np.ndarray:
    T = sample.T_world_camera[view].double().numpy()
    return (np.linalg.inv(T) @ np.array([*point, 1.0]))[:3]


def test_every_family_occurs_and_none_crowds_the_others_out(asked: list[Asked]) -> None:
    counts = collections.Counter(question.family for _, question in asked)
    assert set(counts) == set(QuestionFamily) == set(MAKERS)
    assert len(asked) > 500
    assert max(counts.values()) < 0.2 * len(asked)


def test_answers_are_canonical_and_texts_complete(asked: list[Asked]) -> None:
    for _, question in asked:
        if question.kind is AnswerKind.CHOICE:
            assert question.answer in "ABCD"[: len(question.choices)]
            assert 2 <= len(set(question.choices)) == len(question.choices) <= 4
            assert all(f"{letter}. {text}" in question.text for letter, text in zip("ABCD", question.choices))  # noqa: B905
            assert question.text.endswith("Answer with the letter.")
            assert f"{chosen(question)}." in question.reasoning
        else:
            assert float(question.answer) > 0
            assert re.search(r"Answer with a number( in (metres|degrees))?\.$", question.text)
            assert question.answer in question.reasoning
        assert question.reasoned_answer.endswith(f"Answer: {question.answer}")


def test_depth_of_marked_points(asked: list[Asked]) -> None:
    for sample, question in of_family(asked, QuestionFamily.POINT_DEPTH):
        (marker,) = question.markers
        depth = camera_coordinates(sample, marker.view, tuple(seen_point(sample, marker).tolist()))[2]
        assert right_number(question) == pytest.approx(depth, abs=0.06)
        assert marker.colour.word in question.text


def test_order_of_marked_depths(asked: list[Asked]) -> None:
    for sample, question in of_family(asked, QuestionFamily.DEPTH_ORDER):
        depth = {m.colour.word: sample.depth[m.view, m.v, m.u].item() for m in question.markers}
        assert set(depth) == set(question.choices)
        nearest = any(word in stem(question) for word in ("nearest", "smallest", "closest"))
        best = (min if nearest else max)(depth, key=lambda word: depth[word])
        assert chosen(question) == best


def test_distances(asked: list[Asked]) -> None:
    families = (QuestionFamily.OBJECT_DISTANCE, QuestionFamily.CROSS_VIEW_DISTANCE)
    for sample, question in of_family(asked, *families):
        first, second = named(sample, stem(question))
        distance = np.linalg.norm(np.subtract(first.centre_m, second.centre_m))
        assert right_number(question) == pytest.approx(distance, abs=0.06)
        pixels = [
            sorted(int((sample.instance[view] == thing.instance).sum()) for thing in (first, second))
            for view in range(4)
        ]
        # Recognisable (at least ten pixels) together with anything of the other one.
        together = [view for view in range(4) if pixels[view][0] > 0 and pixels[view][1] >= 12]
        if question.family is QuestionFamily.CROSS_VIEW_DISTANCE:
            assert not together
            assert question.needs_multiple_views
        else:
            assert question.views[0] in together
    for sample, question in of_family(asked, QuestionFamily.CAMERA_DISTANCE):
        (thing,) = named(sample, stem(question))
        centre = camera_coordinates(sample, question.views[0], thing.centre_m)
        assert right_number(question) == pytest.approx(np.linalg.norm(centre), abs=0.06)


def test_relative_positions(asked: list[Asked]) -> None:
    kinds = set()
    for sample, question in of_family(asked, QuestionFamily.RELATIVE_POSITION):
        (view,) = question.views
        if question.markers:
            order = sorted(question.markers, key=lambda m: stem(question).find(f" {m.colour.word} "))
            ids = [int(sample.instance[view, m.v, m.u]) for m in order]
            first, second = (sample.objects[k - 1] for k in ids)
            # "Compared with the second, is the first nearer?"
            if stem(question).startswith("Compared"):
                first, second = second, first
        else:
            first, second = named(sample, stem(question))
            if stem(question).startswith("On which side"):
                first, second = second, first
        a, b = (camera_coordinates(sample, view, thing.centre_m) for thing in (first, second))
        truth = {
            "left": a[0] / a[2] < b[0] / b[2],
            "right": a[0] / a[2] > b[0] / b[2],
            "higher": first.centre_m[1] < second.centre_m[1],
            "lower": first.centre_m[1] > second.centre_m[1],
            "nearer": np.linalg.norm(a) < np.linalg.norm(b),
            "farther": np.linalg.norm(a) > np.linalg.norm(b),
        }
        assert truth[chosen(question)], question.text
        kinds.add(chosen(question))
    assert kinds == {"left", "right", "higher", "lower", "nearer", "farther"}


def test_sides_for_somebody_standing_in_the_room(asked: list[Asked]) -> None:
    for sample, question in of_family(asked, QuestionFamily.VIEWPOINT_POSITION):
        here, ahead, thing = named(sample, stem(question))
        facing, towards = (
            np.array([other.centre_m[0] - here.centre_m[0], other.centre_m[2] - here.centre_m[2]])
            for other in (ahead, thing)
        )
        # Right of the facing direction (x, z), seen from above with x to the right and z ahead, is (z, -x).
        to_the_right = towards @ np.array([facing[1], -facing[0]])
        assert chosen(question) == ("right" if to_the_right > 0 else "left")
        if len(question.views) == 1:
            visible = set(sample.instance[question.views[0]].unique().tolist())
            assert {here.instance, ahead.instance, thing.instance} <= visible
            assert not question.needs_multiple_views


def test_sides_of_objects_out_of_sight(asked: list[Asked]) -> None:
    for sample, question in of_family(asked, QuestionFamily.CROSS_VIEW_POSITION):
        (thing,) = named(sample, stem(question))
        found = re.search(r"[Vv]iew (\d)", stem(question))
        assert found
        view = question.views[int(found[1]) - 1]
        assert not (sample.instance[view] == thing.instance).any()
        x = camera_coordinates(sample, view, thing.centre_m)[0]
        assert chosen(question) == ("left" if x < 0 else "right")


def test_sizes(asked: list[Asked]) -> None:
    for sample, question in of_family(asked, QuestionFamily.SIZE_COMPARISON):
        sizes = {}
        for marker in question.markers:
            thing = sample.objects[int(sample.instance[marker.view, marker.v, marker.u]) - 1]
            width, height, depth = thing.size_m
            sizes[f"the {marker.colour.word} one"] = (
                height if "tallest" in stem(question) else max(width, depth)
            )
        assert set(sizes) == set(question.choices)
        assert chosen(question) == max(sizes, key=lambda word: sizes[word])


def test_counts(asked: list[Asked]) -> None:
    for sample, question in of_family(asked, QuestionFamily.COUNTING):
        text = stem(question).lower()
        nouns = {thing.noun for thing in sample.objects}
        plural = {
            noun: {"bookshelf": "bookshelves", "box": "boxes"}.get(
                noun, f"{noun}es" if noun.endswith("ch") else f"{noun}s"
            )
            for noun in nouns
        }
        noun = max((n for n in nouns if f" {plural[n]} " in f" {text.rstrip('?.')} "), key=len)
        seen = {
            thing.instance
            for thing in sample.objects
            if thing.noun == noun and (sample.instance == thing.instance).any()
        }
        assert int(right_number(question)) == len(seen), question.text


def test_the_view_that_shows_an_object(asked: list[Asked]) -> None:
    for sample, question in of_family(asked, QuestionFamily.WHICH_VIEW):
        (thing,) = named(sample, stem(question))
        showing = [
            f"view {k + 1}"
            for k, v in enumerate(question.views)
            if (sample.instance[v] == thing.instance).any()
        ]
        assert showing == [chosen(question)]


def test_corresponding_points_are_the_same_place(asked: list[Asked]) -> None:
    for sample, question in of_family(asked, QuestionFamily.CORRESPONDENCE):
        query = next(m for m in question.markers if m.view == question.views[0])
        distance = {
            m.colour.word: (seen_point(sample, m) - seen_point(sample, query)).norm().item()
            for m in question.markers
            if m.view == question.views[1]
        }
        assert set(distance) == set(question.choices)
        assert chosen(question) == min(distance, key=lambda word: distance[word])
        depth = sample.depth[query.view, query.v, query.u].item()
        # One pixel of rounding, seen at a slant.
        assert distance[chosen(question)] < 0.25 * depth


def test_camera_motion(asked: list[Asked]) -> None:
    for sample, question in of_family(
        asked, QuestionFamily.CAMERA_TRANSLATION, QuestionFamily.CAMERA_ROTATION
    ):
        first, second = (sample.T_world_camera[view].double().numpy() for view in question.views)
        moved = first[:3, :3].T @ (second[:3, 3] - first[:3, 3])
        ahead = first[:3, :3].T @ second[:3, 2]
        turning = question.family is QuestionFamily.CAMERA_ROTATION
        answer = question.answer if question.kind is AnswerKind.NUMERIC else chosen(question)
        if answer in ("left", "right"):
            side = ahead[0] if turning else moved[0]
            assert answer == ("right" if side > 0 else "left")
        elif answer in ("forward", "backward"):
            assert answer == ("forward" if moved[2] > 0 else "backward")
        elif turning:
            flat = [pose[[0, 2], 2] / np.linalg.norm(pose[[0, 2], 2]) for pose in (first, second)]
            assert right_number(question) == pytest.approx(
                math.degrees(math.acos(flat[0] @ flat[1])), abs=0.6
            )
        else:
            assert right_number(question) == pytest.approx(np.linalg.norm(moved), abs=0.06)


def test_single_view_questions_show_one_view_and_multi_view_ones_several(asked: list[Asked]) -> None:
    for _, question in asked:
        assert len(set(question.views)) == len(question.views)
        assert {marker.view for marker in question.markers} <= set(question.views)
        if question.needs_multiple_views:
            assert len(question.views) > 1
    share = np.mean([question.needs_multiple_views for _, question in asked])
    assert 0.3 < share < 0.8


def test_letters_are_balanced(asked: list[Asked]) -> None:
    for num_choices in (2, 4):
        answers = [q.answer for _, q in asked if len(q.choices) == num_choices]
        counts = collections.Counter(answers)
        expected = len(answers) / num_choices
        chi_square = sum((counts[letter] - expected) ** 2 / expected for letter in "ABCD"[:num_choices])
        # 0.1 % quantiles of chi square with one and three degrees of freedom.
        assert chi_square < {2: 10.8, 4: 16.3}[num_choices]


def test_the_text_alone_does_not_give_answers_away(asked: list[Asked]) -> None:
    """A guesser that knows the most frequent answer of every family and set of choices stays near chance."""
    questions = [q for _, q in asked if q.kind is AnswerKind.CHOICE]
    train, held_out = questions[::2], questions[1::2]
    habit: dict[tuple[QuestionFamily, frozenset[str]], collections.Counter[str]] = collections.defaultdict(
        collections.Counter
    )
    for question in train:
        habit[question.family, frozenset(question.choices)][chosen(question)] += 1
    hits, chance = [], []
    for question in held_out:
        known = habit[question.family, frozenset(question.choices)]
        guess = known.most_common(1)[0][0] if known else question.choices[0]
        hits.append(guess == chosen(question))
        chance.append(1 / len(question.choices))
    assert np.mean(hits) < np.mean(chance) + 0.08


def test_no_single_number_answers_most_numeric_questions(asked: list[Asked]) -> None:
    families = (QuestionFamily.POINT_DEPTH, QuestionFamily.OBJECT_DISTANCE, QuestionFamily.CAMERA_DISTANCE)
    for family in families:
        values = np.array([right_number(question) for _, question in of_family(asked, family)])
        assert len(values) > 20
        guesses = np.geomspace(values.min(), values.max(), 60)
        within = [(np.abs(guess - values) <= 0.25 * values).mean() for guess in guesses]
        assert max(within) < 0.55, family


def test_questions_repeat_for_the_same_sample_and_stream_only() -> None:
    config = full_world()
    sample = render_batch(config, [make_room(3, config)], ViewShape(2, 36, 48)).sample(0)
    assert make_questions(sample, 6) == make_questions(sample, 6)
    assert make_questions(sample, 6) != make_questions(sample, 6, stream=1)
    only = make_questions(sample, 3, families=[QuestionFamily.POINT_DEPTH])
    assert {question.family for question in only} == {QuestionFamily.POINT_DEPTH}
    with pytest.raises(InputError, match="at least one question"):
        make_questions(sample, 0)


def test_a_single_view_gets_only_single_view_questions() -> None:
    config = full_world()
    for seed in range(5):
        sample = render_batch(config, [make_room(seed, config)], ViewShape(1, 48, 64)).sample(0)
        for question in make_questions(sample, 20):
            assert question.views == (0,)
            assert not question.needs_multiple_views


def test_markers_are_drawn_where_they_belong() -> None:
    images = torch.full((2, 3, 40, 60), 0.5)
    drawn = draw_markers(images, [Marker(1, 20, 10, MarkerColour.GREEN)])
    assert torch.equal(drawn[0], images[0])
    torch.testing.assert_close(drawn[1, :, 10, 20], torch.tensor([0.0, 1.0, 0.0]))
    changed = (drawn[1] != 0.5).any(dim=0).nonzero().float()
    torch.testing.assert_close(changed.mean(dim=0), torch.tensor([10.0, 20.0]))
    assert 9 <= len(changed) <= 80
    assert (images == 0.5).all()
    with pytest.raises(InputError, match="inside 2 views"):
        draw_markers(images, [Marker(1, 60, 10, MarkerColour.RED)])


def test_marker_colours_survive_any_background() -> None:
    for colour in MarkerColour:
        background = torch.tensor(colour.value)[None, :, None, None].expand(1, 3, 30, 30)
        drawn = draw_markers(background, [dataclasses.replace(Marker(0, 15, 15, colour))])
        # On its own colour the rim still shows.
        assert (drawn != background).any()
