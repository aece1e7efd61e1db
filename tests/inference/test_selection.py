"""Reconstruction with chosen keys: the dense scene when all are chosen, a measured loss otherwise."""

import numpy as np
import pytest
from PIL import Image

from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.errors import InputError
from g2vlm.inference.selection import select_keys, selection_loss
from g2vlm.inputs.decode import Photo
from g2vlm.model.config import ViewAttention
from g2vlm.model.key_selection import KeyChoice, KeySelection
from g2vlm.pipeline import Model
from g2vlm.video.frames import FramePreparer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.from_pretrained(
        random_checkpoint(tmp_path_factory.mktemp("selection")), device="cpu", dtype="float32"
    )


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (42, 56, 3), dtype=np.uint8)) for _ in range(count)]


def test_all_keys_give_the_dense_scene_and_few_do_not(model: Model) -> None:
    dense = model.reconstruct(pictures(3))
    whole = model.reconstruct(pictures(3), key_selection=KeySelection(1000))
    few = model.reconstruct(pictures(3), key_selection=KeySelection(1))
    for view, same, other in zip(dense.views, whole.views, few.views, strict=True):
        np.testing.assert_allclose(same.depth, view.depth, rtol=1e-4)
        assert np.abs(other.depth / view.depth - 1).max() > 1e-3


@pytest.mark.parametrize("choice", KeyChoice)
def test_the_loss_shrinks_with_more_keys(model: Model, choice: KeyChoice) -> None:
    prepare = FramePreparer(width=model.config.image_width, patch=14)
    pixels = prepare([Photo(one, str(place)) for place, one in enumerate(pictures(4))]).pixels
    losses = [
        selection_loss(model.network, model._prompts, pixels, KeySelection(count, choice))
        for count in (1, 24, 48)
    ]
    assert losses[0].points > losses[1].points > losses[2].points
    assert losses[2].points < 1e-5
    assert losses[0].keys_read == pytest.approx((48 + 3) / (4 * 48))
    assert losses[2].keys_read == 1.0
    assert losses[0].rotation_rad > losses[2].rotation_rad
    assert losses[0].position > losses[2].position


def test_what_cannot_be_selected_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="text only"):
        select_keys(model._prompts.reconstruction_request().inputs, KeySelection(2))
    prepare = FramePreparer(width=model.config.image_width, patch=14)
    pixels = prepare([Photo(one, str(place)) for place, one in enumerate(pictures(2))]).pixels
    causal = model._prompts.reconstruction(pixels, ViewAttention.CAUSAL).inputs
    with pytest.raises(InputError, match="global view attention"):
        select_keys(causal, KeySelection(2))
    with pytest.raises(InputError, match="at least 2 views"):
        selection_loss(model.network, model._prompts, pixels[:1], KeySelection(2))
