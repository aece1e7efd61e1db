"""Loops: proposals against all pairs, geometry that agrees or does not."""

import numpy as np
import pytest

from g2vlm.bench.simulated_walk import SimulatedWalk, WalkOptions
from g2vlm.errors import InputError
from g2vlm.video import loops as loops_module
from g2vlm.video.frames import FramePreparer
from g2vlm.video.loops import (
    LoopCandidate,
    LoopOptions,
    agreement_between,
    find_loops,
    frames_around,
)

WALK = SimulatedWalk(WalkOptions())


def joint(first: range, second: range):
    photos = {number: photo for number, photo in enumerate(WALK.frames()) if number in {*first, *second}}
    chosen = tuple(photos[number] for number in (*first, *second))
    images = FramePreparer(width=WALK.options.width, patch=1)(list(chosen))
    views = WALK(chosen, images).views
    return views[: len(first)], views[len(first) :]


def test_places_seen_again_are_proposed_and_neighbours_are_not():
    descriptors = WALK.descriptors(list(range(400)))
    found = find_loops(descriptors, 12, LoopOptions())
    assert len(found) > 1
    assert all(one.second - one.first >= 24 for one in found)
    assert [one.similarity for one in found] == sorted((one.similarity for one in found), reverse=True)
    centres = WALK.T_world_camera[:, :3, 3]
    best = found[0]
    assert np.linalg.norm(centres[best.first] - centres[best.second]) < 1.0
    for one in found:
        others = [other for other in found if other is not one]
        assert all(abs(one.first - o.first) >= 6 or abs(one.second - o.second) >= 6 for o in others)


def test_blocks_change_nothing_and_limits_hold(monkeypatch):
    descriptors = WALK.descriptors(list(range(400)))
    found = find_loops(descriptors, 12, LoopOptions())
    monkeypatch.setattr(loops_module, "_BLOCK", 37)
    assert find_loops(descriptors, 12, LoopOptions()) == found
    assert find_loops(descriptors, 12, LoopOptions(max_loops=1)) == found[:1]
    assert find_loops(descriptors, 12, LoopOptions(max_loops=0)) == []
    assert find_loops(descriptors[:20], 12, LoopOptions()) == []


def test_a_walk_that_never_returns_has_no_loops():
    once = SimulatedWalk(WalkOptions(num_frames=150, laps=0.4, look_alikes=False))
    assert find_loops(once.descriptors(list(range(150))), 12, LoopOptions()) == []


def test_geometry_tells_the_same_place_from_a_look_alike():
    options = LoopOptions()
    same = agreement_between(*joint(range(6), range(376, 382)))
    alike = agreement_between(*joint(range(30, 36), range(218, 224)))
    assert same > 0.85
    assert alike < 0.6
    assert alike < options.min_agreement < same


def test_views_without_common_space_do_not_agree():
    front, _ = joint(range(4), range(376, 380))
    elsewhere, _ = joint(range(100, 104), range(376, 380))
    assert agreement_between(front, elsewhere) < 0.3


def test_frames_around_a_candidate_stay_inside_the_video():
    first, second = frames_around(LoopCandidate(1, 98, 0.9), 100, 12)
    assert first == list(range(6))
    assert second == list(range(94, 100))
    first, second = frames_around(LoopCandidate(30, 60, 0.9), 100, 12)
    assert (30 in first, 60 in second, len(first), len(second)) == (True, True, 6, 6)


def test_options_out_of_range_are_refused():
    with pytest.raises(InputError, match="from 0 to 1"):
        LoopOptions(min_agreement=1.5)
    with pytest.raises(InputError, match="max_loops"):
        LoopOptions(max_loops=-1)
