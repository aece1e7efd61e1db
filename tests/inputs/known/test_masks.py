"""Masks beside photos, and the rule for sky."""

from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from g2vlm.data.synthetic import ViewShape, render_batch, render_sample
from g2vlm.data.world.config import World, full_world
from g2vlm.data.world.photo.shell import Kind
from g2vlm.data.world.places import make_place
from g2vlm.errors import InputError
from g2vlm.inputs.geometric import prepare_geometric
from g2vlm.inputs.known.masks import mask_photos, mask_sky
from g2vlm.inputs.known.sky import sky_mask
from g2vlm.inputs.photos import load_photos


@pytest.fixture
def room(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        pixels = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg")
    return folder


def half_masks(folder, names, size=(40, 30)):
    folder.mkdir(exist_ok=True)
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    mask[:, size[0] // 2 :] = 255
    for name in names:
        Image.fromarray(mask).save(folder / name)
    return folder


def test_black_is_left_out(room, tmp_path):
    masks = half_masks(tmp_path / "masks", ["0.png", "1.jpg.png"])
    photos, told = mask_photos(load_photos(room), masks)
    valid = prepare_geometric(photos.photos, width=56).valid
    assert not valid[:2, :, :28].any()
    assert valid[:2, :, 28:].all()
    assert valid[2].all()
    assert told == "masks: 2 photos, 50 % left out, 1 without one stay whole"


def test_masks_may_be_inverted(room, tmp_path):
    photos, _ = mask_photos(load_photos(room), half_masks(tmp_path / "masks", ["0_mask.png"]), inverted=True)
    valid = prepare_geometric(photos.photos, width=56).valid
    assert valid[0, :, :28].all()
    assert not valid[0, :, 28:].any()


def test_a_mask_joins_transparency(tmp_path):
    rgba = np.full((60, 80, 4), 255, dtype=np.uint8)
    rgba[:20, :, 3] = 0
    (tmp_path / "p").mkdir()
    Image.fromarray(rgba).save(tmp_path / "p" / "0.png")
    photos, _ = mask_photos(load_photos(tmp_path / "p"), half_masks(tmp_path / "masks", ["0.png"]))
    valid = prepare_geometric(photos.photos, width=56).valid[0]
    assert not valid[:13].any()
    assert not valid[:, :28].any()
    assert valid[15:, 28:].all()


def test_the_photos_given_stay_as_they_are(room, tmp_path):
    photos = load_photos(room)
    mask_photos(photos, half_masks(tmp_path / "masks", ["0.png"]))
    assert photos.photos[0].visible((8, 6)) is None


def test_masks_that_do_not_fit_are_refused(room, tmp_path):
    photos = load_photos(room)
    with pytest.raises(InputError, match="folder of masks"):
        mask_photos(photos, tmp_path / "none")
    with pytest.raises(InputError, match="got none"):
        mask_photos(photos, (tmp_path / "empty").mkdir() or tmp_path / "empty")
    with pytest.raises(InputError, match="rename"):
        mask_photos(photos, half_masks(tmp_path / "other", ["x.png"]))
    with pytest.raises(InputError, match="shape of its photo"):
        mask_photos(photos, half_masks(tmp_path / "flat", ["0.png"], (40, 10)))
    (tmp_path / "black").mkdir()
    Image.new("L", (8, 6)).save(tmp_path / "black" / "0.png")
    with pytest.raises(InputError, match="leaves out everything"):
        mask_photos(photos, tmp_path / "black")


def outdoor_picture(sky=(135, 190, 235)) -> np.ndarray:
    rng = np.random.default_rng(0)
    picture = np.zeros((120, 160, 3), dtype=np.uint8)
    picture[:] = sky
    picture[:60] = np.clip(picture[:60] + np.linspace(0, 15, 60)[:, None, None], 0, 255).astype(np.uint8)
    picture[60:] = rng.integers(40, 160, (60, 160, 3))
    picture[30:60, 100:130] = (110, 70, 60)  # a house before the sky
    return picture


def test_blue_and_white_sky_above_is_found():
    for colour in ((135, 190, 235), (245, 245, 248)):
        sky = sky_mask(outdoor_picture(colour))
        assert sky[:28].mean() > 0.98
        assert sky[62:].mean() < 0.02
        assert sky[34:56, 104:126].mean() < 0.02


def test_blue_things_below_and_beige_walls_are_no_sky():
    picture = outdoor_picture((150, 130, 110))
    picture[80:100, 20:60] = (60, 90, 200)
    assert not sky_mask(picture).any()


def test_sky_is_left_out_of_photos(tmp_path):
    (tmp_path / "p").mkdir()
    Image.fromarray(outdoor_picture()).save(tmp_path / "p" / "0.png")
    photos, told = mask_sky(load_photos(tmp_path / "p"))
    valid = prepare_geometric(photos.photos, width=56).valid[0]
    assert not valid[:10].any()
    assert valid[24:].all()
    assert told.startswith("sky: in 1 of 1 photos")


def seen_at(kind_is_yard: bool, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Found and true sky in pictures of the photographic world."""
    config = World.PHOTO.config
    places = (make_place(seed, config) for seed in range(200))
    chosen = islice((place for place in places if (place.kind is Kind.YARD) == kind_is_yard), count)
    found = []
    for place in chosen:
        batch = render_batch(config, [place], ViewShape(1, 120, 160))
        pixels = (batch.images[0, 0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        found.append((sky_mask(pixels), ~batch.valid[0, 0].numpy()))
    return found


def test_sky_above_fronts_is_found_and_fronts_survive():
    pairs = seen_at(True, 8)
    assert np.mean([(found & ~true).mean() for found, true in pairs]) < 0.01
    recall = [(found & true).sum() / true.sum() for found, true in pairs if true.mean() > 0.05]
    assert np.median(recall) > 0.8, recall


def test_walls_and_ceilings_of_rooms_survive():
    assert np.mean([found.mean() for found, _ in seen_at(False, 8)]) < 0.01
    full = [render_sample(full_world(), 700 + seed, ViewShape(1, 84, 112)).images[0] for seed in range(4)]
    pixels = [(image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy() for image in full]
    assert np.mean([sky_mask(picture).mean() for picture in pixels]) < 0.01
