"""Saving: exact, in the released layout, and all or nothing."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from g2vlm.checkpoints.files import read_config
from g2vlm.checkpoints.loading import RECONSTRUCTION_PARTS, load_network
from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.checkpoints.saving import StoredTensor, save_network, write_safetensors
from g2vlm.errors import OutputError
from g2vlm.model.network import G2VLM
from g2vlm.model.precision import choose_placement

CPU32 = choose_placement("cpu", "float32")
CPU16 = choose_placement("cpu", "bfloat16")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("original"))


def assert_same_weights(found: G2VLM, expected: G2VLM) -> None:
    ours, theirs = dict(found.named_parameters()), dict(expected.named_parameters())
    assert ours.keys() == theirs.keys()
    for name, parameter in ours.items():
        assert parameter.dtype is theirs[name].dtype, name
        assert torch.equal(parameter, theirs[name]), name


def test_what_was_loaded_is_saved_in_the_released_layout_bit_for_bit(
    small_checkpoint: Path, parity_data: Path, tmp_path: Path
) -> None:
    save_network(load_network(small_checkpoint, CPU32), tmp_path / "new" / "copy")
    manifest = json.loads((parity_data / "weights_manifest.json").read_text())
    expected = load_file(small_checkpoint / "model.safetensors")
    with safe_open(tmp_path / "new" / "copy" / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == manifest.keys()
        assert file.metadata() == {"format": "pt"}
        for key, shape in manifest.items():
            tensor = file.get_tensor(key)
            assert list(tensor.shape) == shape, key
            assert torch.equal(tensor, expected[key]), key


@pytest.mark.parametrize("placement", [CPU32, CPU16], ids=["float32", "bfloat16"])
def test_saving_and_loading_changes_nothing(original: Path, tmp_path: Path, placement: object) -> None:
    network = load_network(original, placement)
    save_network(network, tmp_path, tokenizer_from=original)
    again = load_network(tmp_path, placement)
    assert_same_weights(again, network)
    assert again.config == network.config


def test_a_type_on_disk_can_be_asked_for(original: Path, tmp_path: Path) -> None:
    network = load_network(original, CPU32)
    save_network(network, tmp_path, dtype=torch.bfloat16)
    stored = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert torch.equal(stored["dino2llm.weight"], network.bridge.weight.bfloat16())


def test_the_released_configuration_files_alone_describe_the_saved_network(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    network = load_network(small_checkpoint, CPU32)
    save_network(network, tmp_path)
    own = read_config(tmp_path)
    (tmp_path / "g2vlm.json").unlink()
    assert read_config(tmp_path) == own == network.config


def test_tokenizer_and_preparation_travel_with_the_weights(small_checkpoint: Path, tmp_path: Path) -> None:
    save_network(load_network(small_checkpoint, CPU32), tmp_path, tokenizer_from=small_checkpoint)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        assert (tmp_path / name).read_bytes() == (small_checkpoint / name).read_bytes()


def test_a_folder_can_be_saved_over_itself(tmp_path: Path) -> None:
    """The old file is still mapped while the new one is written beside it."""
    folder = random_checkpoint(tmp_path)
    network = load_network(folder, CPU32)
    network.bridge.weight.data.mul_(2)
    save_network(network, folder, tokenizer_from=folder)
    assert_same_weights(load_network(folder, CPU32), network)


def test_an_incomplete_network_is_not_saved(original: Path, tmp_path: Path) -> None:
    network = load_network(original, CPU32, parts=RECONSTRUCTION_PARTS)
    with pytest.raises(OutputError, match=r"without: global_point_head, language_head, semantic_encoder"):
        save_network(network, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def fail_to_sync(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_nothing_behind(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", fail_to_sync)
    with pytest.raises(OutputError, match=r"Could not write .*model.safetensors: .*No space left"):
        save_network(load_network(original, CPU32), tmp_path / "out", tokenizer_from=original)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_leaves_an_older_checkpoint_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = random_checkpoint(tmp_path / "old")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = load_network(random_checkpoint(tmp_path / "other", seed=1), CPU32)
    monkeypatch.setattr(os, "fsync", fail_to_sync)
    with pytest.raises(OutputError):
        save_network(other, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_tensor_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> torch.Tensor:
        raise RuntimeError("no such tensor")

    good = StoredTensor("a", (2,), torch.float32, lambda: torch.ones(2))
    with pytest.raises(RuntimeError, match=r"no such tensor"):
        write_safetensors(tmp_path / "w", [good, StoredTensor("b", (1,), torch.float32, broken)])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_an_error(original: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("here first")
    with pytest.raises(OutputError, match=r"Could not write"):
        save_network(load_network(original, CPU32), tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "here first"


def test_odd_sizes_and_mixed_types_are_readable(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3).bfloat16(),
        "b": torch.randn(2, 3),
        "c": torch.randn(1, 1, 5).bfloat16(),
        "d": torch.randn(7),
    }
    stored = [StoredTensor(k, tuple(t.shape), t.dtype, lambda t=t: t) for k, t in tensors.items()]
    write_safetensors(tmp_path / "w.safetensors", stored)
    found = load_file(tmp_path / "w.safetensors")
    assert found.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert torch.equal(found[key], tensor), key


def test_each_tensor_is_made_only_when_its_turn_comes(tmp_path: Path) -> None:
    """The file grows between two tensors, so that one of them at a time is in memory."""
    sizes: list[int] = []

    def make() -> torch.Tensor:
        (temporary,) = tmp_path.iterdir()
        sizes.append(temporary.stat().st_size)
        return torch.ones(50_000)

    stored = [StoredTensor(str(i), (50_000,), torch.float32, make) for i in range(4)]
    assert sizes == []
    write_safetensors(tmp_path / "w.safetensors", stored)
    assert sizes[3] > sizes[2] > sizes[1] >= 190_000
