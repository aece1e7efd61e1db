"""Streaming: equal to one causal pass, bounded memory, sources, positions."""

import itertools
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.errors import InputError
from g2vlm.inputs.decode import Photo
from g2vlm.inputs.geometric import Fit, StretchedPhotosWarning, prepare_geometric
from g2vlm.inputs.photos import SkippedInputWarning
from g2vlm.model.cache import CacheShape, KeyValueCache
from g2vlm.model.config import EncoderWindows, ViewAttention, g2vlm_test
from g2vlm.model.network import Wants
from g2vlm.model.view_ring import ViewRing
from g2vlm.pipeline import Model
from g2vlm.video import stream as streaming
from g2vlm.video.frames import FramePreparer, open_frames
from g2vlm.video.stream import StreamOptions


def picture(seed: int, size: tuple[int, int] = (112, 84)) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def deviation(points, expected) -> float:
    """Largest distance between point maps, relative to how far away the point is."""
    points, expected = np.asarray(points), np.asarray(expected)
    return float((np.linalg.norm(points - expected, axis=-1) / np.linalg.norm(expected, axis=-1)).max())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    config = g2vlm_test()
    per_view = replace(config.geometric_encoder, windows=EncoderWindows.PER_VIEW)
    folder = random_checkpoint(tmp_path_factory.mktemp("stream"), replace(config, geometric_encoder=per_view))
    return Model.from_pretrained(folder, device="cpu", dtype="float32", view_attention=ViewAttention.CAUSAL)


def test_a_stream_is_the_causal_pass(model: Model) -> None:
    pictures = [picture(seed) for seed in range(5)]
    whole = model.reconstruct(pictures)
    streamed = list(model.stream(pictures))
    assert len(streamed) == 5
    for view, expected in zip(streamed, whole.views, strict=True):
        assert deviation(view.points_camera, expected.points_camera) < 1e-4
        np.testing.assert_allclose(view.T_world_camera, expected.T_world_camera, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(view.K, expected.K, rtol=1e-4)
        np.testing.assert_array_equal(view.rgb, expected.rgb)
        assert 0 < view.confidence.max() <= 1
    # The comparison is not empty: later views do depend on earlier ones.
    alone = next(model.stream([pictures[4]]))
    assert deviation(alone.points_camera, whole.views[4].points_camera) > 1e-2


def test_views_come_before_the_source_ends(model: Model) -> None:
    taken = []

    def pipe():
        for seed in itertools.count():
            taken.append(seed)
            yield picture(seed)

    stream = model.stream(pipe(), window=2)
    for number in range(1, 4):
        next(stream)
        assert len(taken) == number


def test_a_window_that_is_never_full_changes_nothing(model: Model) -> None:
    pictures = [picture(seed) for seed in range(4)]
    bounded = model.stream(pictures, window=2, anchors=1)
    for view, expected in zip(bounded, model.stream(pictures), strict=True):
        assert deviation(view.points_camera, expected.points_camera) < 1e-4


class SlowWindow:
    """A bounded stream as plainly as possible: the cache of every view is put together anew."""

    def __init__(self, model: Model, anchors: int, window: int) -> None:
        self.model, self.anchors, self.window = model, anchors, window
        self.history: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
        self.position = 0

    def cache(self) -> KeyValueCache:
        shape = CacheShape.of(self.model.config.mixture)
        return KeyValueCache(shape, 4096)

    def append(self, cache: KeyValueCache, kept: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        for layer, pair in enumerate(kept):
            cache.store(layer, [pair])
        cache.advance(kept[0][0].shape[2])

    def step(self, pictures: list[Image.Image]) -> np.ndarray:
        """Geometry of the last picture; its predecessors up to the anchors are computed anew, moved on."""
        model, number = self.model, len(pictures) - 1
        preparer = FramePreparer(width=model.config.image_width, patch=14)
        pixels = [preparer([Photo(one, "frame")]).pixels for one in pictures]
        request = model._prompts.reconstruction_request()
        size = model._prompts.next_view(pixels[0], 0).next_position
        dropped = max(0, number - self.anchors - self.window)
        cache, position = self.cache(), request.next_position
        moved = request.inputs.layout.semantic_positions + dropped * size
        model.network(
            replace(request.inputs, layout=replace(request.inputs.layout, semantic_positions=moved)),
            Wants(),
            cache,
        )
        for index in range(min(self.anchors, number)):
            prompt = model._prompts.next_view(pixels[index], position + (index + dropped) * size)
            model.network(prompt.inputs, Wants(), cache)
        for index in range(self.anchors + dropped, number):
            self.append(cache, self.history[index])
        prompt = model._prompts.next_view(pixels[number], position + number * size)
        start = cache.length
        geometry = model.network(prompt.inputs, Wants(geometry=True), cache).geometry
        layers = range(model.config.mixture.num_layers)
        self.history.append(
            [tuple(half[:, :, start:].clone() for half in cache.read(layer, 0)) for layer in layers]
        )
        return geometry.points_camera[0, 0].numpy()


@pytest.mark.parametrize(("anchors", "window"), [(1, 2), (2, 1), (0, 2)])
@torch.inference_mode()
def test_a_bounded_stream_sees_anchors_and_the_latest_views(model: Model, anchors: int, window: int) -> None:
    pictures = [picture(seed) for seed in range(7)]
    slow = SlowWindow(model, anchors, window)
    stream = model.stream(pictures, window=window, anchors=anchors)
    for number, view in enumerate(stream, start=1):
        expected = slow.step(pictures[:number])
        assert deviation(view.points_camera, expected) < 1e-4
    unbounded = list(model.stream(pictures))[-1]
    assert deviation(view.points_camera, unbounded.points_camera) > 1e-3


def test_positions_stay_small_and_bringing_them_back_changes_nothing(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [picture(seed) for seed in range(9)]
    expected = [view.points_camera for view in model.stream(pictures, window=2)]
    monkeypatch.setattr(streaming, "LARGEST_POSITION", 60)
    shifts = []
    shift = ViewRing.shift
    monkeypatch.setattr(ViewRing, "shift", lambda ring, delta: (shifts.append(delta), shift(ring, delta)))
    for view, points in zip(model.stream(pictures, window=2), expected, strict=True):
        assert deviation(view.points_camera, points) < 1e-4
    assert len(shifts) > 3
    assert all(delta <= 0 for delta in shifts)


def test_bounded_memory_does_not_grow(model: Model) -> None:
    options = StreamOptions(window=1)
    stream = streaming._Stream(model.network, model._prompts, model.placement, options)
    prepare = FramePreparer(width=model.config.image_width, patch=14)
    sizes = set()
    for seed in range(6):
        photo = Photo(picture(seed), "frame")
        stream.read(photo, prepare([photo]))
        sizes.add((stream.cache.num_bytes, stream.cache.capacity))
    assert len(sizes) == 1


def test_released_windows_are_replaced_by_one_window_per_view(tmp_path: Path) -> None:
    folder = random_checkpoint(tmp_path / "released", g2vlm_test())
    released = Model.from_pretrained(folder, device="cpu", dtype="float32")
    assert released.config.geometric_encoder.windows is EncoderWindows.RELEASED
    view = next(released.stream([picture(0)]))
    network = released.network
    inputs = released._prompts.reconstruction(
        prepare_geometric([Photo(picture(0), "a")], width=112).pixels, ViewAttention.CAUSAL
    ).inputs
    with torch.inference_mode():
        windowed = network(inputs, Wants(geometry=True)).geometry
        alone = replace(inputs, photographs=replace(inputs.photographs, windows=EncoderWindows.PER_VIEW))
        expected = network(alone, Wants(geometry=True)).geometry
    assert deviation(view.points_camera, expected.points_camera[0, 0]) < 1e-4
    assert deviation(view.points_camera, windowed.points_camera[0, 0]) > 1e-2


def test_frames_are_prepared_as_all_at_once() -> None:
    photos = [Photo(picture(0, (300, 200)), "a"), Photo(picture(1, (200, 300)), "b")]
    for fit in Fit:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StretchedPhotosWarning)
            prepare = FramePreparer(width=112, patch=14, fit=fit)
            whole = prepare_geometric(photos, width=112, fit=fit)
            for index, photo in enumerate(photos):
                one = prepare([photo])
                assert torch.equal(one.pixels[0], whole.pixels[index])
                assert torch.equal(one.valid[0], whole.valid[index])
                assert torch.equal(one.T_model_original[0], whole.T_model_original[index])
                assert one.original_sizes[0] == whole.original_sizes[index]


def test_folders_are_read_in_natural_order_and_damaged_files_left_out(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        picture(number).save(tmp_path / f"frame{number}.png")
    (tmp_path / "frame2.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("not a photo")
    with pytest.warns(SkippedInputWarning, match="frame2"):
        names = [photo.name for photo in open_frames(tmp_path)]
    assert names == ["frame1.png", "frame9.png", "frame10.png"]


def test_sources_that_cannot_work_say_so_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("text")
    for source, message in [
        (tmp_path / "missing", "No such video or folder"),
        (tmp_path / "empty", "is empty"),
        (tmp_path / "file.txt", "Expected a video or a folder"),
        (-1, None),
        (True, "Expected a video, folder"),
        (np.zeros((8, 8, 3), np.uint8), "Expected many images"),
    ]:
        with pytest.raises(InputError, match=message):
            next(open_frames(source))
    with pytest.raises(InputError, match="at least one usable"):
        next(open_frames([]))
    with pytest.raises(InputError, match="only for a video"):
        open_frames([picture(0)], rate_hz=2.0)
    with pytest.raises(InputError, match="window of at least 1"):
        StreamOptions(window=0)
    with pytest.raises(InputError, match="anchor"):
        StreamOptions(anchors=-1)
