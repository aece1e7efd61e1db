import dataclasses

import torch
from small_runs import small_recipe, small_start, small_trainer

from g2vlm.checkpoints.loading import load_network
from g2vlm.model.precision import Placement, Precision
from g2vlm.training.lora import LowRankLinear, add_lora_, freeze_all_but_lora_, merged_lora
from g2vlm.training.recipes.recipe import LoraSettings
from g2vlm.training.recipes.stages import Group, Stage


def test_update_starts_at_zero_and_only_experts_get_one(training_checkpoint, tmp_path):
    network = small_start(training_checkpoint, tmp_path).network
    layer = network.mixture.layers[0].geometric
    x = torch.randn(2, 5, 32)
    before = layer.mlp(x)
    add_lora_(network, frozenset({Group.GEOMETRIC_EXPERT}), LoraSettings(rank=4))
    torch.testing.assert_close(layer.mlp(x), before)
    wrapped = [name for name, module in network.named_modules() if isinstance(module, LowRankLinear)]
    assert len(wrapped) == 2 * 4
    assert all(".geometric." in name for name in wrapped)
    learning = [name for name, weight in network.named_parameters() if weight.requires_grad]
    assert freeze_all_but_lora_(network)
    learning = [name for name, weight in network.named_parameters() if weight.requires_grad]
    assert len(learning) == 16
    assert all(name.endswith((".down", ".up")) for name in learning)


def test_merged_map_does_the_same(training_checkpoint, tmp_path):
    network = small_start(training_checkpoint, tmp_path).network
    names = [name for name, _ in network.named_parameters()]
    add_lora_(network, frozenset({Group.SEMANTIC_EXPERT}), LoraSettings(rank=4))
    expert = network.mixture.layers[1].semantic
    with torch.no_grad():
        expert.qkv.up.normal_()
    x = torch.randn(3, 32)
    wrapped, base = expert.qkv(x), expert.qkv.base.weight.clone()
    with merged_lora(network):
        assert [name for name, _ in network.named_parameters()] == names
        torch.testing.assert_close(expert.qkv(x), wrapped, atol=1e-5, rtol=1e-4)
    assert isinstance(expert.qkv, LowRankLinear)
    assert torch.equal(expert.qkv.base.weight, base)


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
