"""The table of released names."""

import json
from pathlib import Path

import pytest
import torch

from g2vlm.checkpoints.files import read_config
from g2vlm.checkpoints.names import rows_of, table
from g2vlm.model.config import G2VLMConfig, HeadsConfig, Part, g2vlm_2b, g2vlm_test
from g2vlm.model.network import G2VLM


def released_shapes(config: G2VLMConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        ours = {name: tuple(p.shape) for name, p in G2VLM(config).named_parameters()}
    found: dict[str, tuple[int, ...]] = {}
    for row in table(config):
        shapes = row.released_shapes(ours[row.ours])
        assert not found.keys() & shapes.keys()
        found |= shapes
    return found


def test_the_table_gives_exactly_the_released_keys_and_shapes(
    small_checkpoint: Path, parity_data: Path
) -> None:
    manifest = json.loads((parity_data / "weights_manifest.json").read_text())
    found = released_shapes(read_config(small_checkpoint))
    assert found == {key: tuple(shape) for key, shape in manifest.items()}


@pytest.mark.parametrize(
    "config",
    [g2vlm_test(), g2vlm_2b(), G2VLMConfig(heads=HeadsConfig(confidence=True))],
    ids=["test", "2b", "confidence"],
)
def test_every_parameter_has_one_row(config: G2VLMConfig) -> None:
    with torch.device("meta"):
        parameters = [name for name, _ in G2VLM(config).named_parameters()]
    rows = [row.ours for row in table(config)]
    assert sorted(rows) == sorted(parameters)


@pytest.mark.parametrize("part", list(Part))
def test_the_rows_of_a_part_are_the_parameters_of_that_part(part: Part) -> None:
    config = G2VLMConfig(heads=HeadsConfig(confidence=True))
    with torch.device("meta"):
        network = G2VLM(config, frozenset({part}))
    assert {row.ours for row in rows_of(part, config)} == {name for name, _ in network.named_parameters()}


def test_the_released_size_has_the_released_number_of_numbers() -> None:
    shapes = released_shapes(g2vlm_2b())
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == pytest.approx(4.54e9, rel=0.005)
    assert shapes["dino_model.embeddings.patch_embeddings.projection.weight"] == (1024, 3, 14, 14)
    assert shapes["vit_model.patch_embed.proj.weight"] == (1280, 3, 2, 14, 14)
    assert shapes["language_model.model.layers.27.self_attn.k_proj_moe_geo.weight"] == (256, 1536)
    assert shapes["language_model.model.layers.27.mlp_moe_geo.down_proj.weight"] == (1536, 8960)


def test_the_confidence_head_is_laid_out_like_the_point_head() -> None:
    shapes = released_shapes(G2VLMConfig(heads=HeadsConfig(confidence=True)))
    assert shapes["conf_head.proj.weight"] == (196, 1024)
    points = {key.removeprefix("point_decoder.") for key in shapes if key.startswith("point_decoder.")}
    assert points == {key.removeprefix("conf_decoder.") for key in shapes if key.startswith("conf_decoder.")}
