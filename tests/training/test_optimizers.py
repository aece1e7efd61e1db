import torch
from torch import nn

from g2vlm.training.recipes.recipe import Optimisation, OptimizerKind
from g2vlm.training.run.optimizers import make_optimizers


def some_weights() -> dict[str, nn.Parameter]:
    shapes = {
        "embedding.weight": (6, 4),
        "mixture.layers.0.geometric.out.weight": (4, 4),
        "mixture.layers.0.geometric.mlp_norm.weight": (4,),
        "point_head.prediction.proj.weight": (3, 4),
        "geometric_encoder.position_table": (1, 5, 4),
    }
    return {name: nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()}


def names(optimizer: torch.optim.Optimizer, weights: dict[str, nn.Parameter]) -> dict[str, float]:
    """Decay of every weight of an optimizer, by name."""
    named = {id(weight): name for name, weight in weights.items()}
    return {named[id(w)]: g["weight_decay"] for g in optimizer.param_groups for w in g["params"]}


def test_adamw_takes_everything_and_decays_matrices_only():
    weights = some_weights()
    (only,) = make_optimizers(weights, Optimisation(1, 1e-3, weight_decay=0.1))
    decays = names(only, weights)
    assert decays.keys() == weights.keys()
    matrices = {"mixture.layers.0.geometric.out.weight", "point_head.prediction.proj.weight"}
    assert {name for name, decay in decays.items() if decay} == matrices


def test_muon_takes_matrices_between_channels_only():
    weights = some_weights()
    settings = Optimisation(1, 1e-3, kind=OptimizerKind.MUON)
    muon, adamw = make_optimizers(weights, settings)
    assert isinstance(muon, torch.optim.Muon)
    assert set(names(muon, weights)) == {"mixture.layers.0.geometric.out.weight"}
    assert set(names(adamw, weights)) == set(weights) - set(names(muon, weights))


def test_steps_of_both_are_about_as_large():
    sizes = []
    for kind in OptimizerKind:
        torch.manual_seed(0)
        weights = {"layers.0.out.weight": nn.Parameter(torch.zeros(64, 48))}
        for optimizer in make_optimizers(weights, Optimisation(1, 1e-3, kind=kind)):
            weights["layers.0.out.weight"].grad = torch.randn(64, 48)
            optimizer.step()
        sizes.append(weights["layers.0.out.weight"].detach().square().mean().sqrt().item())
    # AdamW's first step is as long as it gets; Muon is scaled to the length of a usual one.
    assert 0.1 < sizes[1] / sizes[0] < 1.0
