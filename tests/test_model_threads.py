"""One model, several threads: each gets what it would get alone."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from in_threads import at_once
from PIL import Image

import g2vlm
from g2vlm import pipeline
from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.inputs.decode import Photo
from g2vlm.video.frames import FramePreparer
from g2vlm.video.reconstructor import NetworkReconstructor


def pictures(count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("threads"))


@pytest.fixture
def model(checkpoint: Path) -> g2vlm.Model:
    return g2vlm.load(checkpoint, device="cpu", dtype="float32")


def points(scene: g2vlm.Scene) -> np.ndarray:
    return np.stack([view.points_camera for view in scene.views])


def test_scenes_and_perceptions_made_at_once_are_those_made_one_by_one(model: g2vlm.Model) -> None:
    sources = [pictures(1 + seed % 2, seed) for seed in range(6)]
    looks = [lambda source=source: points(model.reconstruct(source)) for source in sources]
    looks += [lambda source=source: points(model.perceive(source).scene) for source in sources]
    alone = [look() for look in looks]
    for found, expected in zip(at_once(looks), alone, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_missing_parts_are_loaded_once_and_seen_only_when_they_are_complete(
    model: g2vlm.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[torch.nn.Module] = []
    extend = pipeline.extend_network

    def counted(*given: object) -> torch.nn.Module:
        loaded.append(extend(*given))
        return loaded[-1]

    def adapted(network: torch.nn.Module, *_rest: object, **_options: object) -> None:
        assert model.network is not network, "a network was published before it was adapted"

    monkeypatch.setattr(pipeline, "extend_network", counted)
    monkeypatch.setattr(pipeline, "adapt_", adapted)
    answers = at_once([lambda: model.perceive(pictures(1, 0)).ask("Where?", max_new_tokens=3).token_ids] * 6)
    assert len(loaded) == 1
    assert model.network is loaded[0]
    assert len(set(answers)) == 1


def test_seconds_are_those_of_the_own_thread(model: g2vlm.Model) -> None:
    loading = dict(model.timings)
    assert set(loading) == {"load_s"}
    model.reconstruct(pictures(1, 0))
    own = dict(model.timings)
    seen: list[dict[str, float]] = []

    def other() -> None:
        seen.append(dict(model.timings))
        model.perceive(pictures(1, 1))
        seen.append(dict(model.timings))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen[0] == loading
    assert "load_s" in seen[1]
    assert model.timings == own


def test_descriptors_are_of_the_own_views_only(model: g2vlm.Model) -> None:
    """Collected by a hook on the shared encoder, those of one thread once landed in another's."""
    reconstruct = NetworkReconstructor(model.network, model._prompts, model.view_attention)
    prepare = FramePreparer(width=model.config.image_width, patch=14)

    def descriptors(seed: int) -> np.ndarray:
        photos = tuple(Photo(Image.fromarray(picture), str(i)) for i, picture in enumerate(pictures(3, seed)))
        return reconstruct(photos, prepare(list(photos))).descriptors

    alone = [descriptors(seed) for seed in range(4)]
    for _ in range(3):
        found = at_once([lambda seed=seed: descriptors(seed) for seed in range(4)])
        for one, other in zip(found, alone, strict=True):
            np.testing.assert_array_equal(one, other)
