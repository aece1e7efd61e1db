"""The uncertainty of a length: how often the truth lies within it."""

from dataclasses import replace

import numpy as np
import pytest
from noisy_room import HEIGHT, WIDTH, box_room, with_errors

from g2vlm.scene.measuring.errors import DepthErrors
from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.view import PixelSpace

MODEL = PixelSpace.MODEL


def test_errors_of_known_size_are_measured():
    errors = DepthErrors(with_errors(box_room(), np.random.default_rng(0), local=0.01).views)
    assert errors.local(1, 30, 40) == pytest.approx(0.01, rel=0.25)
    assert errors.common(1) < 0.002


def test_a_factor_of_each_view_is_told_from_noise():
    found = []
    for seed in range(30):
        errors = DepthErrors(with_errors(box_room(), np.random.default_rng(seed), common=0.02).views)
        assert errors.local(1, 30, 40) < 0.004
        found.append(errors.common(1))
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(0.02, rel=0.25)


def test_an_exact_scene_has_next_to_no_error():
    measured = box_room().measure_distance(0, (20, 30), 2, (60, 35), MODEL)
    assert measured.uncertainty < 0.03 * measured.value


@pytest.mark.parametrize(("local", "common"), [(0.01, 0.0), (0.0, 0.02), (0.01, 0.01)])
def test_the_truth_lies_within_two_deviations_as_often_as_it_should(local, common):
    rng = np.random.default_rng(7)
    truth = box_room()
    inside = []
    for _ in range(50):
        scene = with_errors(truth, rng, local, common)
        for _ in range(4):
            a, b = rng.integers(0, 4, 2)
            pixels = [(int(rng.integers(8, WIDTH - 8)), int(rng.integers(8, HEIGHT - 8))) for _ in "ab"]
            ends = (int(a), pixels[0], int(b), pixels[1], MODEL)
            measured, true = scene.measure_distance(*ends), truth.measure_distance(*ends)
            if true.value > 0.5:
                inside.append(abs(measured.value - true.value) <= 2 * measured.uncertainty)
    assert 0.88 <= np.mean(inside) <= 0.995, np.mean(inside)


def test_depth_lies_within_two_deviations():
    rng = np.random.default_rng(3)
    truth = box_room()
    inside = []
    for _ in range(60):
        scene = with_errors(truth, rng, 0.01, 0.01)
        pixel = (int(rng.integers(8, WIDTH - 8)), int(rng.integers(8, HEIGHT - 8)))
        measured, true = (s.measure_depth(1, pixel, MODEL) for s in (scene, truth))
        inside.append(abs(measured.value - true.value) <= 2 * measured.uncertainty)
    assert 0.85 <= np.mean(inside) <= 1.0


def test_a_single_view_cannot_tell():
    measured = box_room(1).measure_distance(0, (20, 30), 0, (60, 35), MODEL)
    assert measured.uncertainty is None
    assert "+-" not in str(measured)


def test_the_error_of_the_metre_is_added():
    scene = with_errors(box_room(), np.random.default_rng(0), local=0.01)
    plain = scene.measure_distance(0, (20, 30), 2, (60, 35), MODEL)
    metric = replace(scene, scale=Scale(ScaleKind.METRIC, "test", relative_error=0.1))
    wider = metric.measure_distance(0, (20, 30), 2, (60, 35), MODEL)
    assert wider.uncertainty == pytest.approx(np.hypot(plain.uncertainty, 0.1 * plain.value))
    assert "+-" in str(wider)
    assert str(wider).endswith(" m")
