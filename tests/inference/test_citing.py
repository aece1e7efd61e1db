"""An answer and what the geometry says about the points it speaks of."""

import pytest
from noisy_room import box_room

from g2vlm.inference.citing import NOTHING_NAMED, cite
from g2vlm.scene.metre import KnownDistance, KnownThings


def test_a_question_about_two_points_is_measured():
    scene = box_room()
    citation = cite(scene, "How far is (40, 100) in image 1 from (260, 130) in image 3?", "About 2 m.")
    assert citation.source == "question"
    assert [each.kind for each in citation.lengths] == ["depth", "depth", "distance"]
    expected = scene.measure_distance(0, (40, 100), 2, (260, 130))
    assert citation.lengths[2].measurement == expected
    assert f"distance between (40, 100) in frame_0.png and (260, 130) in frame_2.png: {expected}" in str(
        citation
    )
    assert citation.lines[-1] == "scale relative: test"


def test_metres_are_those_of_the_scene():
    known = KnownThings(distances=(KnownDistance(0, (40, 100), 2, (260, 130), 3.5),))
    metric = box_room().calibrated(known).scene
    citation = cite(metric, "How far is (40, 100) in view 1 from (260, 130) in view 3?")
    assert citation.lengths[2].measurement.value == pytest.approx(3.5, rel=1e-6)
    assert citation.summary()["measurements"][2]["unit"] == "m"


def test_the_answer_is_read_where_the_question_names_nothing():
    citation = cite(box_room(), "Where is the chair?", "At [500, 500].")
    assert citation.source == "answer"
    (depth,) = citation.lengths
    assert depth.measurement == box_room().measure_depth(0, (159.5, 119.5))
    assert "(thousandths)" in citation.lines[0]
    assert "since no image is named" in citation.lines[0]


def test_nothing_named_is_said():
    citation = cite(box_room(), "Where is the chair?", "On the left.")
    assert citation.lines == (NOTHING_NAMED,)
    assert citation.summary()["measurements"] == []
    assert citation.summary()["named_in"] is None


def test_a_point_outside_is_told_beside_the_others():
    citation = cite(box_room(), "How far is (40, 100) from (4000, 130)?")
    assert citation.lengths[0].measurement is not None
    assert "inside the original image" in citation.lengths[1].problem
    assert "not measured" in citation.lines[1]
    assert citation.summary()["measurements"][1]["value"] is None


def test_many_points_get_depths_only():
    text = " ".join(f"({20 * i + 20}, 60)" for i in range(6))
    assert [each.kind for each in cite(box_room(), text).lengths] == ["depth"] * 6
