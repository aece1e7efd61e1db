"""Public towers arrive in our checkpoint with every number, and compute there what they computed before."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_towers import SIDE, save_small_towers

from g2vlm.checkpoints.loading import load_network
from g2vlm.checkpoints.towers import assemble
from g2vlm.cli import main as cli
from g2vlm.errors import CheckpointError
from g2vlm.model.config import EncoderWindows
from g2vlm.model.precision import choose_placement

CPU32 = choose_placement("cpu", "float32")
GRID = SIDE // 14


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_small_towers(tmp_path_factory.mktemp("towers"))


def copy_without(folder: Path, target: Path, key: str) -> Path:
    target.mkdir()
    (target / "config.json").write_text((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    weights.pop(key)
    save_file(weights, target / "model.safetensors")
    return target


def test_every_number_of_the_towers_arrives(towers: tuple[Path, Path], tmp_path: Path) -> None:
    done = assemble(*towers, tmp_path / "start")
    stored = load_file(done.folder / "model.safetensors")
    dino, qwen = (load_file(folder / "model.safetensors") for folder in towers)
    assert all(torch.equal(stored[f"dino_model.{key}"], value) for key, value in dino.items())
    for key, value in qwen.items():
        ours = f"vit_model.{key[7:]}" if key.startswith("visual.") else f"language_model.{key}"
        assert torch.equal(stored[ours], value), key
    # Tied words are stored once there, twice here.
    assert torch.equal(stored["language_model.lm_head.weight"], qwen["model.embed_tokens.weight"])
    assert done.taken == len(dino) + len(qwen) + 1
    assert done.taken + done.fresh == len(stored)


def test_the_geometric_encoder_computes_what_it_did(towers: tuple[Path, Path], tmp_path: Path) -> None:
    from transformers import Dinov2WithRegistersModel

    network = load_network(assemble(*towers, tmp_path / "start").folder, CPU32)
    assert network.config.geometric_encoder.windows is EncoderWindows.PER_VIEW
    images = torch.randn(2, 3, SIDE, SIDE)
    oracle = Dinov2WithRegistersModel.from_pretrained(towers[0]).eval()
    with torch.inference_mode():
        expected = oracle(pixel_values=images).last_hidden_state[:, 5:]
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        found = network.geometric_encoder((images * std + mean)[None])
    torch.testing.assert_close(found.reshape(expected.shape), expected, atol=1e-4, rtol=1e-4)


def test_what_is_fresh_starts_as_the_paper_says(towers: tuple[Path, Path], tmp_path: Path) -> None:
    network = load_network(assemble(*towers, tmp_path / "start").folder, CPU32)
    assert not network.bridge.weight.any()
    layer = network.mixture.layers[1]
    assert layer.geometric.attention_scale.gamma.eq(0.01).all()
    assert layer.semantic.query_norm.weight.eq(1).all()
    spread = layer.geometric.qkv.weight.std().item()
    assert 0.015 < spread < 0.025
    other = load_network(assemble(*towers, tmp_path / "other", seed=1).folder, CPU32)
    assert not torch.equal(other.mixture.layers[1].geometric.qkv.weight, layer.geometric.qkv.weight)
    assert torch.equal(other.embedding.weight, network.embedding.weight)


def test_what_is_not_whole_is_refused_with_the_keys(towers: tuple[Path, Path], tmp_path: Path) -> None:
    dino, qwen = towers
    key = "encoder.layer.1.mlp.fc1.bias"
    with pytest.raises(CheckpointError, match=rf"not a complete dinov2.*\n1 missing: {key}"):
        assemble(copy_without(dino, tmp_path / "a", key), qwen, tmp_path / "start")
    key = "visual.merger.mlp.0.bias"
    with pytest.raises(CheckpointError, match=rf"not a complete qwen2_vl.*\n1 missing: {key}"):
        assemble(dino, copy_without(qwen, tmp_path / "b", key), tmp_path / "start")
    assert not (tmp_path / "start").exists()


def test_wrong_folders_are_told(towers: tuple[Path, Path], tmp_path: Path) -> None:
    dino, qwen = towers
    with pytest.raises(CheckpointError, match="exchange the folders"):
        assemble(qwen, dino, tmp_path / "start")
    with pytest.raises(CheckpointError, match="hf download"):
        assemble(tmp_path / "nowhere", qwen, tmp_path / "start")
    config = json.loads((qwen / "config.json").read_text())
    del config["vision_config"]
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="vision_config"):
        assemble(dino, tmp_path / "odd", tmp_path / "start")


def test_the_command(towers: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "assemble",
        "--dino",
        str(towers[0]),
        "--qwen",
        str(towers[1]),
        "--folder",
        str(tmp_path / "start"),
    ]
    assert cli.main([*words, "--dtype", "bfloat16"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'start'}\n"
    assert (tmp_path / "start" / "tokenizer.json").is_file()
    weights = load_file(tmp_path / "start" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert cli.main(words) == cli.EXIT_MISTAKE
    assert "another --folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["preprocessor_config.json", "tokenizer.json"])
def test_words_and_pictures_must_be_prepared_as_the_towers_learned(
    towers: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    qwen = Path(shutil.copytree(towers[1], tmp_path / "qwen"))
    (qwen / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} of qwen2_vl.*download the whole folder"):
        assemble(towers[0], qwen, tmp_path / "start")
    assert not (tmp_path / "start").exists()
