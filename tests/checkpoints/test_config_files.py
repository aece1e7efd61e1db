"""Configuration files of a checkpoint folder."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from g2vlm.checkpoints.files import own_config_text, read_config, released_config_texts
from g2vlm.errors import CheckpointError
from g2vlm.model.config import (
    EncoderWindows,
    G2VLMConfig,
    GeometricEncoderConfig,
    HeadsConfig,
    MixtureConfig,
    ViewAttention,
    g2vlm_2b,
    g2vlm_test,
)


@pytest.fixture
def released(small_checkpoint: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "released"
    folder.mkdir()
    for name in ("text_config.json", "vit_config.json", "dino_config.json"):
        shutil.copy(small_checkpoint / name, folder)
    return folder


def change(path: Path, **entries: object) -> None:
    content = json.loads(path.read_text())
    for key, value in entries.items():
        if value is None:
            del content[key]
        else:
            content[key] = value
    path.write_text(json.dumps(content))


def test_released_files_give_their_sizes(released: Path) -> None:
    config = read_config(released)
    assert config.mixture == MixtureConfig(
        vocab_size=512, width=256, mlp_width=320, num_layers=3, num_heads=2, num_kv_heads=1
    )
    encoder = config.geometric_encoder
    assert (encoder.width, encoder.num_layers, encoder.position_grid) == (64, 2, 37)
    assert encoder.windows is EncoderWindows.RELEASED
    assert (config.semantic_encoder.width, config.semantic_encoder.num_layers) == (64, 2)
    assert config.view_attention is ViewAttention.GLOBAL
    assert not config.heads.confidence
    assert read_config(released, has_confidence=True).heads.confidence


def test_facts_that_the_loader_knows_better_do_not_depend_on_the_files(released: Path) -> None:
    before = read_config(released)
    change(
        released / "text_config.json",
        rope_scaling={"type": "mrope", "mrope_section": [1, 2, 3]},
        tie_word_embeddings=True,
        qk_norm=False,
    )
    change(released / "vit_config.json", patch_size=16)
    assert read_config(released) == before


@pytest.mark.parametrize("name", ["text_config.json", "vit_config.json", "dino_config.json"])
def test_a_missing_file_is_named_with_what_a_folder_holds(released: Path, name: str) -> None:
    (released / name).unlink()
    with pytest.raises(CheckpointError, match=f"Expected {name} in .*model.safetensors"):
        read_config(released)


@pytest.mark.parametrize("content", ["", "{", "not json", "\x00"])
def test_malformed_json_is_an_error(released: Path, content: str) -> None:
    (released / "vit_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"vit_config.json is not a readable JSON file"):
        read_config(released)


def test_bytes_that_are_no_text_are_an_error(released: Path) -> None:
    (released / "dino_config.json").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(CheckpointError, match=r"dino_config.json is not a readable JSON file"):
        read_config(released)


def test_json_that_is_no_object_is_an_error(released: Path) -> None:
    (released / "text_config.json").write_text("[1, 2]")
    with pytest.raises(CheckpointError, match="must hold a JSON object, found a list"):
        read_config(released)


@pytest.mark.parametrize(
    ("name", "entry"),
    [("text_config", "hidden_size"), ("vit_config", "depth"), ("dino_config", "num_hidden_layers")],
)
def test_a_missing_entry_is_named(released: Path, name: str, entry: str) -> None:
    change(released / f"{name}.json", **{entry: None})
    with pytest.raises(CheckpointError, match=f"expected the entry '{entry}'"):
        read_config(released)


@pytest.mark.parametrize(
    ("name", "entry", "value"),
    [
        ("text_config", "hidden_size", "256"),
        ("text_config", "num_attention_heads", 0),
        ("text_config", "num_key_value_heads", 7),
        ("vit_config", "embed_dim", [64]),
        ("dino_config", "patch_size", 0),
        ("dino_config", "hidden_size", 63),
    ],
)
def test_an_entry_that_makes_no_sense_is_an_error(
    released: Path, name: str, entry: str, value: object
) -> None:
    change(released / f"{name}.json", **{entry: value})
    with pytest.raises(CheckpointError, match="do not describe a g2vlm network"):
        read_config(released)


OTHER = G2VLMConfig(
    geometric_encoder=GeometricEncoderConfig(windows=EncoderWindows.PER_VIEW, num_layers=3),
    heads=HeadsConfig(confidence=True),
    view_attention=ViewAttention.CAUSAL,
    image_width=224,
)


@pytest.mark.parametrize("config", [g2vlm_2b(), g2vlm_test(), OTHER], ids=["2b", "test", "other"])
def test_our_own_file_says_everything(config: G2VLMConfig, tmp_path: Path) -> None:
    (tmp_path / "g2vlm.json").write_text(own_config_text(config))
    assert read_config(tmp_path) == config


def test_released_files_of_the_released_size_say_the_released_size(tmp_path: Path) -> None:
    for name, text in released_config_texts(g2vlm_2b()).items():
        (tmp_path / name).write_text(text)
    assert read_config(tmp_path) == g2vlm_2b()


def test_our_own_file_goes_before_the_released_ones(released: Path) -> None:
    (released / "g2vlm.json").write_text(own_config_text(replace(g2vlm_test(), image_width=126)))
    assert read_config(released).image_width == 126


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format_version": 99}, "expected format_version 1, got 99: update g2vlm"),
        ({"format_version": None}, "expected format_version 1, got None"),
        ({"view_attention": "sideways"}, "does not describe a g2vlm network: 'sideways'"),
        ({"mixture": None}, "does not describe a g2vlm network: 'mixture'"),
        ({"heads": {"blocks": 3}}, "does not describe a g2vlm network: .*blocks"),
        ({"colour": "red"}, "does not describe a g2vlm network: .*colour"),
    ],
)
def test_a_wrong_file_of_our_own_is_an_error(
    entries: dict[str, object], message: str, tmp_path: Path
) -> None:
    (tmp_path / "g2vlm.json").write_text(own_config_text(g2vlm_test()))
    change(tmp_path / "g2vlm.json", **entries)
    with pytest.raises(CheckpointError, match=message):
        read_config(tmp_path)
