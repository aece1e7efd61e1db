"""What a user calls, against the public system: load, reconstruct, perceive, ask."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import g2vlm

TOLERANCE = 2e-5
STEPS = 24


@pytest.fixture(scope="module")
def model(small_checkpoint: Path) -> g2vlm.Model:
    return g2vlm.load(small_checkpoint, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def cases(parity_data: Path) -> dict[str, dict]:
    return json.loads((parity_data / "cases.json").read_text())


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_reconstruct_gives_the_scene_of_the_public_system(
    model: g2vlm.Model, computed_images: Path, parity_data: Path
) -> None:
    assert model.network.semantic_encoder is None, "reconstruction loads what it does not need"
    scene = model.reconstruct(str(computed_images / "landscape_*.png"))
    expected = load_file(parity_data / "computed_landscape.safetensors")
    views = scene.views
    assert [view.name for view in views] == [f"landscape_{i}.png" for i in range(3)]
    assert_close(np.stack([v.T_world_camera for v in views]), expected["recon.camera_poses"][0].numpy())
    for i, view in enumerate(views):
        local, world = (expected[f"recon.{name}[::9]"][0, i].numpy() for name in ("local_points", "points"))
        assert_close(view.points_camera[::9, ::9], local)
        assert_close(view.points_world[::9, ::9], world)
        image = expected["recon.images[::9]"][0, i].numpy()
        assert np.array_equal(view.rgb[::9, ::9].transpose(2, 0, 1), np.round(image * 255))
        assert view.original_size == (640, 480)
    assert model.timings.keys() >= {"read_s", "forward_s", "assemble_s"}


@pytest.fixture(scope="module", params=["computed_landscape", "computed_portrait"])
def perceived(
    request: pytest.FixtureRequest, model: g2vlm.Model, cases: dict[str, dict], computed_images: Path
) -> tuple[g2vlm.Perception, dict]:
    case = cases[request.param]
    return model.perceive([computed_images / name for name in case["images"]]), case


def test_ask_gives_the_tokens_and_the_answer_of_the_public_system(
    perceived: tuple[g2vlm.Perception, dict],
) -> None:
    perception, case = perceived
    pieces: list[str] = []
    answer = perception.ask(case["question"], max_new_tokens=STEPS, on_text=pieces.append)
    assert list(answer.token_ids) == case["token_ids"]
    assert answer.text == str(answer) == case["answer"]
    assert "".join(pieces) == case["answer"]
    assert not answer.finished
    assert answer.timings.keys() == {"prefill_s", "decode_s"}


def test_answers_do_not_depend_on_what_was_asked_before(perceived: tuple[g2vlm.Perception, dict]) -> None:
    perception, case = perceived
    before = perception.num_tokens
    first = perception.ask(case["question"], max_new_tokens=STEPS)
    other = perception.ask("What is behind the wall?", max_new_tokens=STEPS)
    assert perception.num_tokens == before
    again = perception.ask(case["question"], max_new_tokens=STEPS)
    assert list(first.token_ids) == list(again.token_ids) == case["token_ids"]
    assert other.token_ids != first.token_ids


def test_a_perceived_scene_has_the_views_of_the_photos(perceived: tuple[g2vlm.Perception, dict]) -> None:
    perception, case = perceived
    assert [view.name for view in perception.scene.views] == case["images"]
