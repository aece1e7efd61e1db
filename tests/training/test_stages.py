import pytest
import torch
from small_runs import small_config

from g2vlm.model.network import G2VLM
from g2vlm.training.recipes.stages import (
    Group,
    Stage,
    freeze_,
    from_scratch_groups,
    group_of,
    released_groups,
)


@pytest.fixture(scope="module")
def network():
    with torch.device("meta"):
        return G2VLM(small_config())


def test_every_weight_has_a_group(network):
    found = {group_of(name) for name, _ in network.named_parameters()}
    assert found == set(Group)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("mixture.layers.3.geometric.mlp.down.weight", Group.GEOMETRIC_EXPERT),
        ("mixture.layers.3.semantic.mlp.down.weight", Group.SEMANTIC_EXPERT),
        ("mixture.geometric_norm.weight", Group.GEOMETRIC_EXPERT),
        ("mixture.semantic_norm.weight", Group.SEMANTIC_EXPERT),
        ("bridge.weight", Group.GEOMETRIC_EXPERT),
        ("language_head.weight", Group.SEMANTIC_EXPERT),
    ],
)
def test_groups_of_names(name, group):
    assert group_of(name) is group


def test_released_rules():
    assert released_groups(Stage.GEOMETRY) == {Group.GEOMETRIC_EXPERT, Group.GEOMETRY_HEADS}
    assert released_groups(Stage.JOINT) == {Group.SEMANTIC_EXPERT}
    assert released_groups(Stage.SPATIAL_REASONING) - released_groups(Stage.JOINT) == {Group.GEOMETRIC_EXPERT}
    for stage in Stage:
        assert released_groups(stage) < from_scratch_groups(stage)


def test_freezing_leaves_unused_weights_out(network):
    chosen = dict(freeze_(network, frozenset(Group)))
    assert "geometric_encoder.mask_token" not in chosen
    assert len(chosen) == len(list(network.parameters())) - 1
    freeze_(network, frozenset({Group.GEOMETRY_HEADS}))
    learning = {group_of(name) for name, weight in network.named_parameters() if weight.requires_grad}
    assert learning == {Group.GEOMETRY_HEADS}
