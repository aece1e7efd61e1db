"""Loading and the model that a user holds; on a very small random network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import g2vlm
from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.errors import CheckpointError, DeviceError, InputError
from g2vlm.model.config import EncoderWindows, g2vlm_test


def pictures(count: int, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Views attend to themselves in the encoder, so that only the mixture joins them."""
    small = g2vlm_test()
    encoder = replace(small.geometric_encoder, windows=EncoderWindows.PER_VIEW)
    return random_checkpoint(tmp_path_factory.mktemp("c"), replace(small, geometric_encoder=encoder))


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> g2vlm.Model:
    return g2vlm.load(checkpoint, device="cpu", dtype="float32")


def points(scene: g2vlm.Scene, view: int = 0) -> np.ndarray:
    return scene.views[view].points_camera


def test_pictures_may_come_as_arrays_images_files_or_a_folder(model: g2vlm.Model, tmp_path: Path) -> None:
    arrays = pictures(2)
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / f"{i}.png")
    expected = model.reconstruct(arrays)
    sources = [
        [Image.fromarray(array) for array in arrays],
        tmp_path,
        str(tmp_path / "*.png"),
        [tmp_path / "0.png", str(tmp_path / "1.png")],
    ]
    for source in sources:
        found = model.reconstruct(source)
        assert len(found.views) == 2
        assert np.array_equal(points(found, 1), points(expected, 1))


def test_causal_views_do_not_depend_on_later_ones(checkpoint: Path) -> None:
    causal = g2vlm.load(checkpoint, device="cpu", dtype="float32", view_attention="causal")
    both, alone = causal.reconstruct(pictures(2)), causal.reconstruct(pictures(1))
    np.testing.assert_allclose(points(both), points(alone), rtol=1e-4, atol=1e-5)


def test_global_views_do(model: g2vlm.Model) -> None:
    both, alone = model.reconstruct(pictures(2)), model.reconstruct(pictures(1))
    assert np.abs(points(both) - points(alone)).max() > 1e-3


def test_parts_are_loaded_when_they_are_first_needed(checkpoint: Path) -> None:
    model = g2vlm.load(checkpoint, device="cpu", dtype="float32")
    scene = model.reconstruct(pictures(1))
    before = model.network
    assert before.language_head is None
    model.perceive(pictures(1))
    assert model.network.language_head is not None
    assert model.network.global_point_head is None
    assert model.network.mixture is before.mixture
    extended = model.network
    model.perceive(pictures(1))
    assert model.network is extended
    assert np.array_equal(points(model.reconstruct(pictures(1))), points(scene))


def test_a_saved_model_is_the_same_model(model: g2vlm.Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "copy")
    again = g2vlm.Model.from_pretrained(tmp_path / "copy", device="cpu", dtype="float32")
    assert np.array_equal(points(again.reconstruct(pictures(2))), points(model.reconstruct(pictures(2))))
    answers = [m.perceive(pictures(2)).ask("Where?", max_new_tokens=6).token_ids for m in (model, again)]
    assert answers[0] == answers[1]


def test_bfloat16_runs_and_keeps_the_geometry_in_float32(checkpoint: Path, model: g2vlm.Model) -> None:
    rounded = g2vlm.load(checkpoint, device="cpu", dtype="bfloat16")
    found, exact = points(rounded.reconstruct(pictures(2))), points(model.reconstruct(pictures(2)))
    assert found.dtype == np.float32
    assert 0 < np.abs(found - exact).mean() < 0.05 * np.abs(exact).mean()
    assert len(rounded.perceive(pictures(2)).ask("Where?", max_new_tokens=6).token_ids) == 6


def test_at_most_so_many_views_are_used(model: g2vlm.Model) -> None:
    assert len(model.reconstruct(pictures(5), max_views=2).views) == 2


def test_progress_and_seconds_are_reported(checkpoint: Path) -> None:
    steps: list[tuple[int, int]] = []
    model = g2vlm.load(checkpoint, device="cpu", on_progress=lambda *step: steps.append(step))
    assert steps[-1][0] == steps[-1][1] == len(steps)
    assert model.timings["load_s"] > 0
    model.reconstruct(pictures(1))
    assert all(seconds >= 0 for seconds in model.timings.values())
    assert set(model.timings) == {"read_s", "forward_s", "assemble_s"}


def test_gradients_are_never_recorded(model: g2vlm.Model) -> None:
    perception = model.perceive(pictures(1))
    assert torch.is_grad_enabled()
    assert not any(p.requires_grad for p in model.network.parameters())
    assert perception._memory.photos[0].keys.grad_fn is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "gpu"}, DeviceError, "such as auto, cpu, cuda"),
        ({"dtype": "float16"}, DeviceError, "auto, float32 or bfloat16"),
        ({"view_attention": "sideways"}, InputError, "global, causal, got 'sideways'"),
    ],
)
def test_wrong_options_are_errors_before_anything_is_loaded(
    checkpoint: Path, options: dict[str, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        g2vlm.load(checkpoint, **options, on_progress=lambda *_: pytest.fail("the weights were read first"))


def test_a_folder_without_a_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        g2vlm.load(tmp_path, device="cpu")


def test_a_checkpoint_without_a_tokenizer_is_an_error(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "g2vlm.json"):
        (tmp_path / name).symlink_to(checkpoint / name)
    with pytest.raises(CheckpointError, match=r"Expected tokenizer.json"):
        g2vlm.load(tmp_path, device="cpu")


def test_no_pictures_are_an_error(model: g2vlm.Model, tmp_path: Path) -> None:
    for source in ([], tmp_path, tmp_path / "none.png"):
        with pytest.raises(InputError):
            model.reconstruct(source)
