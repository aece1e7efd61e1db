import pytest
import torch

from g2vlm.model.config import g2vlm_test
from g2vlm.model.initialisation import BridgeStart, Initialisation, initialise_
from g2vlm.model.layout import Block, Layout
from g2vlm.model.network import G2VLM, ModelInputs, Photographs, Wants


@pytest.fixture(scope="module")
def network():
    return initialise_(G2VLM(g2vlm_test()))


def geometry(network):
    views, rows, columns = 2, 2, 3
    patches = views * rows * columns
    positions = torch.arange(1 + patches).expand(3, -1)
    layout = Layout((Block(1, 0, True), Block(0, patches, False)), positions[:, :1], positions[:, 1:])
    images = torch.rand(1, views, 3, rows * 14, columns * 14, generator=torch.Generator().manual_seed(3))
    inputs = ModelInputs(layout, torch.zeros(1, 1, dtype=torch.long), torch.tensor([0]), Photographs(images))
    return network(inputs, Wants(geometry=True, global_points=True)).geometry


def test_start_is_a_wall_at_distance_one(network):
    with torch.no_grad():
        found = geometry(network)
    depth = found.points_camera[..., 2]
    assert float(depth.min()) > 0.5
    assert float(depth.max()) < 2.0
    assert torch.isfinite(found.points_global).all()


def test_camera_gradient_is_finite_at_the_start(network):
    found = geometry(network)
    (found.T_world_camera * torch.randn(found.T_world_camera.shape)).sum().backward()
    gradients = [w.grad for w in network.camera_head.parameters() if w.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_seeds_and_names_decide(network):
    again, other = (initialise_(G2VLM(g2vlm_test()), Initialisation(seed=seed)) for seed in (0, 1))
    name = "mixture.layers.1.geometric.mlp.down.weight"
    assert torch.equal(again.get_parameter(name), network.get_parameter(name))
    assert not torch.equal(other.get_parameter(name), network.get_parameter(name))
    twin = name.replace("layers.1", "layers.2")
    assert not torch.equal(network.get_parameter(twin), network.get_parameter(name))


def test_choices_of_the_paper():
    choices = Initialisation(fan_in=False, bridge=BridgeStart.ZERO, geometric_scale=0.01)
    network = initialise_(G2VLM(g2vlm_test()), choices)
    assert not network.bridge.weight.any()
    assert torch.all(network.mixture.layers[0].geometric.mlp_scale.gamma == 0.01)
    assert float(network.mixture.layers[0].semantic.qkv.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
