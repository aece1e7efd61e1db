import dataclasses
import json

import peft
import pytest
import torch
from small_runs import small_recipe, small_trainer

from g2vlm.checkpoints.loading import load_network
from g2vlm.errors import CheckpointError, InputError
from g2vlm.model.config import g2vlm_test
from g2vlm.model.initialisation import initialise_
from g2vlm.model.network import G2VLM
from g2vlm.model.precision import Placement, Precision
from g2vlm.training.lora import adapted_layers, merge_adapter_, merged_lora
from g2vlm.training.recipes.recipe import LoraSettings, Optimisation
from g2vlm.training.recipes.stages import Group, Stage


@pytest.fixture
def network(training_checkpoint):
    return load_network(training_checkpoint, Placement(torch.device("cpu"), Precision.FLOAT32))


def with_updates(trainer):
    """A trainer's network, its updates no longer zero."""
    network = trainer.learner.network
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if ".lora_B." in name:
                weight.copy_(torch.randn(weight.shape, generator=generator))
    return network


def test_update_starts_at_zero_and_only_experts_get_one(training_checkpoint, tmp_path, network):
    x = torch.randn(2, 5, 32)
    expected = network.mixture.layers[0].geometric.mlp(x)
    recipe = small_recipe(
        training_checkpoint, Stage.SPATIAL_REASONING, lora=LoraSettings(rank=4),
        trained=frozenset({Group.GEOMETRIC_EXPERT}),
    )  # fmt: skip
    adapted = small_trainer(recipe, tmp_path).learner.network
    torch.testing.assert_close(adapted.mixture.layers[0].geometric.mlp(x), expected)
    wrapped = adapted_layers(adapted)
    assert len(wrapped) == 2 * 4
    assert all(".geometric." in name for name in wrapped)
    learning = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert len(learning) == 16
    assert all(".lora_" in name for name in learning)


def test_merged_map_does_the_same(training_checkpoint, tmp_path, network):
    names = [name for name, _ in network.named_parameters()]
    recipe = small_recipe(training_checkpoint, Stage.JOINT, lora=LoraSettings(rank=4))
    adapted = with_updates(small_trainer(recipe, tmp_path))
    expert = adapted.mixture.layers[1].semantic
    x = torch.randn(3, 32)
    wrapped, base = expert.qkv(x), expert.qkv.base_layer.weight.clone()
    with merged_lora(adapted):
        assert [name for name, _ in adapted.named_parameters()] == names
        torch.testing.assert_close(expert.qkv(x), wrapped, atol=1e-5, rtol=1e-4)
    assert hasattr(expert.qkv, "lora_A")
    assert torch.equal(expert.qkv.base_layer.weight, base)


def test_an_adapter_opens_with_peft_and_loads_back_into_ours(training_checkpoint, tmp_path, network):
    recipe = small_recipe(training_checkpoint, Stage.SPATIAL_REASONING, lora=LoraSettings(rank=2))
    recipe = dataclasses.replace(recipe, optimisation=Optimisation(1, 1e-3))
    trainer = small_trainer(recipe, tmp_path, export_dtype=torch.float32)
    with_updates(trainer)
    trainer.export()
    placement = Placement(torch.device("cpu"), Precision.FLOAT32)
    expected = dict(load_network(tmp_path / "model", placement).named_parameters())
    with_peft = load_network(training_checkpoint, placement)
    opened = peft.PeftModel.from_pretrained(with_peft, tmp_path / "adapter").merge_and_unload()
    merge_adapter_(network, tmp_path / "adapter")
    for found in (dict(opened.named_parameters()), dict(network.named_parameters())):
        assert found.keys() == expected.keys()
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], weight, msg=name)
    facts = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert facts["base_model_name_or_path"] == str(training_checkpoint)


def test_an_adapter_of_another_network_is_refused(training_checkpoint, tmp_path, network):
    with pytest.raises(CheckpointError, match="adapter's folder"):
        merge_adapter_(network, tmp_path)
    recipe = small_recipe(training_checkpoint, Stage.SPATIAL_REASONING, lora=LoraSettings(rank=2))
    small_trainer(recipe, tmp_path).export()
    other = initialise_(G2VLM(g2vlm_test()))
    with pytest.raises(CheckpointError, match="trained on"):
        merge_adapter_(other, tmp_path / "adapter")


def test_updates_need_an_expert(training_checkpoint, tmp_path):
    recipe = small_recipe(training_checkpoint, lora=LoraSettings(), trained=frozenset({Group.GEOMETRY_HEADS}))
    with pytest.raises(InputError, match="trains an expert"):
        small_trainer(recipe, tmp_path)


def test_low_rank_run_exports_plain_weights(training_checkpoint, tmp_path):
    recipe = small_recipe(training_checkpoint, Stage.SPATIAL_REASONING, lora=LoraSettings(rank=2))
    recipe = dataclasses.replace(recipe, optimisation=dataclasses.replace(recipe.optimisation, steps=1))
    trainer = small_trainer(recipe, tmp_path, export_dtype=torch.float32)
    trainer.run()
    placement = Placement(torch.device("cpu"), Precision.FLOAT32)
    trained, started = (
        load_network(folder, placement) for folder in (tmp_path / "model", training_checkpoint)
    )
    before = dict(started.named_parameters())
    changed = {name for name, w in trained.named_parameters() if not torch.equal(w, before[name])}
    assert changed
    assert all(name.startswith("mixture.layers.") and name.endswith("weight") for name in changed)
