"""The network as the reconstructor of long videos."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.errors import OutputError
from g2vlm.inputs.decode import Photo
from g2vlm.pipeline import Model
from g2vlm.video.frames import FramePreparer
from g2vlm.video.long_video import LongVideoOptions
from g2vlm.video.reconstructor import NetworkReconstructor


def picture(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((56, 42), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = random_checkpoint(tmp_path_factory.mktemp("pieces"))
    return Model.from_pretrained(folder, device="cpu", dtype="float32")


def test_pieces_are_what_the_model_reconstructs(model: Model, tmp_path: Path) -> None:
    pictures = [picture(seed) for seed in range(5)]
    video = model.reconstruct_long(pictures, tmp_path, LongVideoOptions(window=4, overlap=2, loops=None))
    assert video.names == ("piece_0000000_0000003", "piece_0000002_0000004")
    for name in video.names:
        piece = video.folder.read(name)
        scene = model.reconstruct([pictures[frame] for frame in piece.frames])
        for view, expected in zip(piece.views, scene.views, strict=True):
            np.testing.assert_array_equal(view.rgb, expected.rgb)
            np.testing.assert_allclose(view.points_camera, expected.points_camera, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(view.T_world_camera, expected.T_world_camera, rtol=1e-4, atol=1e-4)
    assert [view.name for view in video.views()] == [f"image_{number:06d}" for number in range(5)]
    np.testing.assert_allclose(video.anchored().trajectory()[0], np.eye(4), atol=1e-5)
    with pytest.raises(OutputError, match="window was 4, now 2"):
        model.reconstruct_long(pictures, tmp_path, LongVideoOptions(window=2, overlap=1))


def test_descriptors_tell_pictures_apart_and_do_not_depend_on_company(model: Model) -> None:
    reconstruct = NetworkReconstructor(model.network, model._prompts, model.view_attention)

    def descriptors(seeds: list[int]) -> torch.Tensor:
        photos = tuple(Photo(picture(seed), str(place)) for place, seed in enumerate(seeds))
        result = reconstruct(photos, FramePreparer(width=model.config.image_width, patch=14)(list(photos)))
        assert len(result.views) == len(seeds)
        return torch.nn.functional.normalize(torch.from_numpy(result.descriptors), dim=-1)

    first, second = descriptors([0, 1, 2]), descriptors([5, 0])
    assert first.shape == (3, model.config.geometric_encoder.width)
    # The drifting windows of the released encoder let a little of the neighbour in.
    assert float(first[0] @ second[1]) > float(first[0] @ first[1])
    assert not model.network.geometric_encoder._forward_hooks
