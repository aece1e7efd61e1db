"""Strict loading: what fits is loaded exactly, what does not is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from g2vlm.checkpoints.loading import (
    CHAT_PARTS,
    RECONSTRUCTION_PARTS,
    IncompleteCheckpointError,
    extend_network,
    load_network,
)
from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.errors import CheckpointError
from g2vlm.model.network import G2VLM, Photographs, Wants
from g2vlm.model.precision import choose_placement

CPU32 = choose_placement("cpu", "float32")
CPU16 = choose_placement("cpu", "bfloat16")
Edit = Callable[[dict[str, Tensor]], None]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "checkpoint"))


def edit(folder: Path, change: Edit) -> Path:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    return folder


def without(*beginnings: str) -> Edit:
    def change(weights: dict[str, Tensor]) -> None:
        for key in [key for key in weights if key.startswith(beginnings)]:
            del weights[key]

    return change


def weights_of(network: G2VLM) -> dict[str, Tensor]:
    return dict(network.named_parameters())


def test_every_value_arrives(original: Path) -> None:
    """Fused and reshaped weights are spelled out; the parity tests cover the rest."""
    stored = load_file(original / "model.safetensors")
    network = load_network(original, CPU32)
    found = weights_of(network)
    attention = "language_model.model.layers.1.self_attn"
    for name in ("weight", "bias"):
        expected = torch.cat([stored[f"{attention}.{p}_proj_moe_geo.{name}"] for p in "qkv"])
        assert torch.equal(found[f"mixture.layers.1.geometric.qkv.{name}"], expected)
    gate, up = (stored[f"language_model.model.layers.2.mlp.{p}_proj.weight"] for p in ("gate", "up"))
    assert torch.equal(found["mixture.layers.2.semantic.mlp.gate_up.weight"], torch.cat([gate, up]))
    patch = stored["vit_model.patch_embed.proj.weight"]
    assert torch.equal(found["semantic_encoder.patch_embedding.weight"], patch.flatten(1))
    assert torch.equal(found["bridge.bias"], stored["dino2llm.bias"])
    assert sum(p.numel() for p in found.values()) == sum(p.numel() for p in stored.values())


def test_a_loaded_network_is_ready_for_inference(original: Path) -> None:
    network = load_network(original, CPU32)
    assert not network.training
    for name, parameter in network.named_parameters():
        assert not parameter.requires_grad, name
        assert parameter.device.type == "cpu", name


def test_bfloat16_rounds_the_towers_and_keeps_the_heads(original: Path) -> None:
    exact, rounded = (weights_of(load_network(original, placement)) for placement in (CPU32, CPU16))
    for name, parameter in rounded.items():
        in_head = name.startswith(("point_head", "camera_head", "global_point_head"))
        assert parameter.dtype is (torch.float32 if in_head else torch.bfloat16), name
        assert torch.equal(parameter, exact[name].to(parameter.dtype)), name


def test_missing_leftover_and_misshapen_keys_are_all_listed_by_their_released_names(folder: Path) -> None:
    def change(weights: dict[str, Tensor]) -> None:
        del weights["language_model.model.layers.0.self_attn.q_norm_moe_geo.weight"]
        weights["language_model.model.layers.9.ls1.gamma"] = torch.ones(64)
        weights["dino2llm.weight"] = torch.ones(64, 31)

    with pytest.raises(IncompleteCheckpointError) as caught:
        load_network(edit(folder, change), CPU32)
    message = str(caught.value)
    assert "1 missing: language_model.model.layers.0.self_attn.q_norm_moe_geo.weight" in message
    assert "1 unexpected: language_model.model.layers.9.ls1.gamma" in message
    assert "1 misshapen: dino2llm.weight [64, 31] instead of [64, 32]" in message
    assert "model.safetensors" in message
    assert "nothing was loaded" in message
    assert isinstance(caught.value, CheckpointError)


def test_long_lists_of_keys_are_cut_and_counted(folder: Path) -> None:
    with pytest.raises(IncompleteCheckpointError, match=r"missing: .* \.\.\. and \d+ more") as caught:
        load_network(edit(folder, without("language_model.")), CPU32)
    assert len(caught.value.report.missing) > 50
    assert len(str(caught.value)) < 4000


def test_a_fused_weight_of_the_wrong_split_is_noticed(folder: Path) -> None:
    """Rows moved from the keys to the queries would leave the fused shape as it is."""

    def change(weights: dict[str, Tensor]) -> None:
        attention = "language_model.model.layers.0.self_attn"
        q, k = weights[f"{attention}.q_proj.weight"], weights[f"{attention}.k_proj.weight"]
        weights[f"{attention}.q_proj.weight"] = torch.cat([q, k[:4]])
        weights[f"{attention}.k_proj.weight"] = k[4:].clone()

    with pytest.raises(IncompleteCheckpointError, match=r"2 misshapen: .*k_proj.*q_proj"):
        load_network(edit(folder, change), CPU32)


def test_keys_are_checked_even_of_parts_that_are_not_loaded(folder: Path) -> None:
    with pytest.raises(IncompleteCheckpointError, match=r"vit_model.merger.ln_q.bias"):
        load_network(edit(folder, without("vit_model.merger.ln_q.bias")), CPU32, parts=RECONSTRUCTION_PARTS)


def test_keys_named_as_ignorable_may_be_missing_or_left_over(folder: Path) -> None:
    def change(weights: dict[str, Tensor]) -> None:
        without("global_point")(weights)
        weights["optimizer.step"] = torch.ones(1)

    edit(folder, change)
    with pytest.raises(IncompleteCheckpointError, match=r"missing: global_point"):
        load_network(folder, CPU32, parts=CHAT_PARTS, ignore=("optimizer.",))
    network = load_network(folder, CPU32, parts=CHAT_PARTS, ignore=("optimizer.", "global_point"))
    assert network.global_point_head is None


def test_an_ignored_part_that_is_asked_for_must_be_complete_all_the_same(folder: Path) -> None:
    edit(folder, without("global_points_decoder.blocks.0.attn"))
    with pytest.raises(IncompleteCheckpointError, match=r"missing: global_points_decoder.blocks.0.attn"):
        load_network(folder, CPU32, ignore=("global_point",))


def test_one_beginning_may_be_given_as_a_plain_string(folder: Path) -> None:
    """Read letter by letter, it would make nearly every key ignorable."""
    edit(folder, without("dino2llm.bias"))
    with pytest.raises(IncompleteCheckpointError, match=r"dino2llm.bias"):
        load_network(folder, CPU32, ignore="global_point")


def test_a_misshapen_key_is_never_ignorable(folder: Path) -> None:
    edit(folder, lambda weights: weights.update({"dino2llm.bias": torch.ones(3)}))
    with pytest.raises(IncompleteCheckpointError, match=r"misshapen: dino2llm.bias"):
        load_network(folder, CPU32, ignore=("dino2llm",))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"<html>404: Not Found</html>" * 50),
        lambda path: path.write_bytes((10).to_bytes(8, "little") + b"{not json}"),
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
    ],
    ids=["truncated", "empty", "html", "header", "lfs-pointer"],
)
def test_a_damaged_file_is_an_error_with_advice(folder: Path, damage: Callable[[Path], object]) -> None:
    damage(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"not a readable safetensors file .* g2vlm download"):
        load_network(folder, CPU32)


def test_missing_weights_are_an_error_with_advice(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"Expected the weights at .*model.safetensors, found no file"):
        load_network(folder, CPU32)


@pytest.mark.parametrize("stored", [torch.float16, torch.float64])
def test_other_floating_types_are_converted(folder: Path, original: Path, stored: torch.dtype) -> None:
    edit(folder, lambda weights: weights.update({key: w.to(stored) for key, w in weights.items()}))
    exact = weights_of(load_network(original, CPU32))
    for name, parameter in weights_of(load_network(folder, CPU32)).items():
        assert torch.equal(parameter, exact[name].to(stored).float()), name


@pytest.mark.parametrize("stored", [torch.int8, torch.float8_e4m3fn])
def test_quantized_files_are_refused(folder: Path, stored: torch.dtype) -> None:
    edit(folder, lambda weights: weights.update({"dino2llm.weight": torch.ones(64, 32).to(stored)}))
    with pytest.raises(CheckpointError, match=r"dino2llm.weight as F32, BF16, F16, F64, got"):
        load_network(folder, CPU32)


def test_parts_that_a_job_does_not_need_are_not_loaded(original: Path) -> None:
    steps: list[tuple[int, int]] = []
    network = load_network(
        original, CPU32, parts=RECONSTRUCTION_PARTS, on_progress=lambda *step: steps.append(step)
    )
    for absent in ("semantic_encoder", "language_head", "global_point_head"):
        assert getattr(network, absent) is None
        assert not any(name.startswith(absent) for name in weights_of(network))
    assert steps == [(i + 1, len(steps)) for i in range(len(steps))]
    assert len(steps) == len(weights_of(network))


def test_extending_a_network_shares_what_is_already_loaded(original: Path) -> None:
    small = load_network(original, CPU32, parts=RECONSTRUCTION_PARTS)
    steps = weights_of(small)
    extended = extend_network(small, original, CPU32, CHAT_PARTS)
    assert extended.parts == CHAT_PARTS & extended.config.parts
    assert extended.mixture is small.mixture
    found, whole = weights_of(extended), weights_of(load_network(original, CPU32, parts=CHAT_PARTS))
    assert found.keys() == whole.keys()
    assert found.keys() > steps.keys()
    for name, parameter in found.items():
        assert torch.equal(parameter, whole[name]), name
        if name in steps:
            assert parameter is steps[name], name
    assert not extended.training
    assert not any(p.requires_grad for p in extended.parameters())


def add_confidence(weights: dict[str, Tensor]) -> None:
    decoder = {key: value for key, value in weights.items() if key.startswith("point_decoder.")}
    weights.update({key.replace("point_decoder", "conf_decoder"): v.clone() for key, v in decoder.items()})
    width = weights["point_head.proj.weight"].shape[1]
    weights["conf_head.proj.weight"] = torch.randn(196, width) * 0.1
    weights["conf_head.proj.bias"] = torch.zeros(196)


def test_a_confidence_head_in_the_file_is_found_and_used(small_checkpoint: Path, tmp_path: Path) -> None:
    """The released configuration files do not say whether there is one; the keys do."""
    folder = edit(Path(shutil.copytree(small_checkpoint, tmp_path / "c")), add_confidence)
    network = load_network(folder, CPU32, parts=RECONSTRUCTION_PARTS)
    assert network.config.heads.confidence
    with torch.no_grad():
        hidden = torch.randn(1, 2 * 4, network.config.mixture.width)
        images = Photographs(torch.zeros(1, 2, 3, 28, 28))
        prediction = network.decode_geometry(hidden, images, Wants(geometry=True))
    assert prediction.confidence_logits.shape == (1, 2, 28, 28)
    assert float(prediction.confidence_logits.std()) > 0


def test_half_a_confidence_head_is_an_incomplete_checkpoint(small_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_checkpoint, tmp_path / "c"))

    def change(weights: dict[str, Tensor]) -> None:
        add_confidence(weights)
        del weights["conf_head.proj.bias"]

    with pytest.raises(IncompleteCheckpointError, match=r"1 missing: conf_head.proj.bias"):
        load_network(edit(folder, change), CPU32)


def shard(folder: Path, count: int) -> dict[str, str]:
    """Split the weights into shards with an index, as large checkpoints on the hub are."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    keys = sorted(weights)
    places = {}
    for i in range(count):
        name = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        part = {key: weights[key] for key in keys[i::count]}
        save_file(part, folder / name)
        places |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return places


def test_a_sharded_checkpoint_equals_the_whole_file(folder: Path, original: Path) -> None:
    shard(folder, 3)
    whole = weights_of(load_network(original, CPU32))
    for name, parameter in weights_of(load_network(folder, CPU32)).items():
        assert torch.equal(parameter, whole[name]), name


def test_a_missing_shard_is_named(folder: Path) -> None:
    name = next(iter(shard(folder, 3).values()))
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"Expected the weights at .*{name}"):
        load_network(folder, CPU32)


def test_keys_missing_from_all_shards_are_listed_under_the_index(folder: Path) -> None:
    key, name = next(iter(shard(folder, 2).items()))
    part = load_file(folder / name)
    del part[key]
    save_file(part, folder / name)
    with pytest.raises(IncompleteCheckpointError, match=rf"index.json is not(?s:.*)1 missing: {key}"):
        load_network(folder, CPU32)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": 3}']
)
def test_a_malformed_index_is_an_error(folder: Path, content: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"not a readable index of shards"):
        load_network(folder, CPU32)


def test_a_vocabulary_that_does_not_fit_the_weights_is_an_error(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small_checkpoint, tmp_path / "c"))
    text = json.loads((folder / "text_config.json").read_text())
    (folder / "text_config.json").write_text(json.dumps(text | {"vocab_size": 513}))
    with pytest.raises(IncompleteCheckpointError) as caught:
        load_network(folder, CPU32)
    keys = [line.split()[0] for line in caught.value.report.misshapen]
    assert keys == ["language_model.lm_head.weight", "language_model.model.embed_tokens.weight"]


def test_parts_are_loaded_in_inference_mode_too(original: Path) -> None:
    with torch.inference_mode():
        network = load_network(original, CPU32, parts=RECONSTRUCTION_PARTS)
        whole = extend_network(network, original, CPU32, CHAT_PARTS)
    assert not any(values.is_inference() for values in whole.parameters())
