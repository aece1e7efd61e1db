"""The whole network: parts, streams, wants."""

import pytest
import torch
from random_weights import fill_randomly

from g2vlm.model import network as network_module
from g2vlm.model.config import G2VLMConfig, HeadsConfig, Part, few_layer_2b, g2vlm_2b, g2vlm_test
from g2vlm.model.layout import Block, Layout
from g2vlm.model.network import G2VLM, ModelInputs, Photographs, SemanticPatches, Wants

MEASURED_PARAMETERS = {
    Part.GEOMETRIC_ENCODER: 304e6 + 1.6e6,
    Part.SEMANTIC_ENCODER: 665e6,
    Part.MIXTURE: 1_777e6 + 1_310e6 - 467e6 / 2,
    Part.LANGUAGE_HEAD: 467e6 / 2,
    Part.POINT_HEAD: 144e6,
    Part.CAMERA_HEAD: 144e6,
    Part.GLOBAL_POINT_HEAD: 191e6,
}
"""As the specification of the released model lists them."""


def count(config: G2VLMConfig, part: Part | None = None) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in G2VLM(config, part and frozenset({part})).parameters())


@pytest.mark.parametrize("part", list(MEASURED_PARAMETERS))
def test_each_part_has_the_released_number_of_parameters(part: Part) -> None:
    assert count(g2vlm_2b(), part) == pytest.approx(MEASURED_PARAMETERS[part], rel=0.01)


def test_presets_have_the_sizes_that_their_names_promise() -> None:
    assert count(g2vlm_2b()) == pytest.approx(4.54e9, rel=0.005)
    assert count(few_layer_2b()) == pytest.approx(1.0e9, rel=0.2)
    assert count(g2vlm_test()) < 1e6


def test_a_network_holds_exactly_the_parts_asked_for() -> None:
    with torch.device("meta"):
        network = G2VLM(g2vlm_test(), frozenset({Part.MIXTURE, Part.CAMERA_HEAD}))
    assert {name for name, _ in network.named_children()} == {"embedding", "mixture", "camera_head"}
    assert network.parts == {Part.MIXTURE, Part.CAMERA_HEAD}


def test_a_confidence_head_that_the_configuration_lacks_is_not_built() -> None:
    assert Part.CONFIDENCE_HEAD not in g2vlm_test().parts
    with torch.device("meta"):
        network = G2VLM(g2vlm_test(), frozenset({Part.CONFIDENCE_HEAD}))
    assert network.confidence_head is None
    assert Part.CONFIDENCE_HEAD in G2VLMConfig(heads=HeadsConfig(confidence=True)).parts


def test_using_an_absent_part_names_it() -> None:
    network = fill_randomly(G2VLM(g2vlm_test(), frozenset({Part.MIXTURE})))
    with pytest.raises(RuntimeError, match="built without its language_head"):
        network(text_inputs(), Wants(logit_slots=torch.tensor([0])))


def text_inputs() -> ModelInputs:
    positions = torch.arange(3).expand(3, -1)
    layout = Layout((Block(3, 0, causal=True),), positions, torch.empty(3, 0, dtype=torch.long))
    return ModelInputs(layout, torch.tensor([[4, 5, 6]]), torch.arange(3))


def test_semantic_image_tokens_fill_the_slots_that_text_leaves() -> None:
    """Text, two images in order, text: each image token must stand in its own slot."""
    network = fill_randomly(G2VLM(g2vlm_test(), frozenset({Part.MIXTURE, Part.SEMANTIC_ENCODER})))
    patches = torch.randn(1, 2, 8, network.config.semantic_encoder.patch_features)
    images = SemanticPatches(patches, 2, 4)
    slots = torch.tensor([0, 1, 4, 5, 8])  # images of two merged tokens at 2, 3 and 6, 7
    positions = torch.zeros(3, 9, dtype=torch.long)
    layout = Layout((Block(9, 0, causal=False),), positions, positions[:, :0])
    ids = torch.tensor([[7, 8, 9, 10, 11]])
    stream = network._semantic_stream(ModelInputs(layout, ids, slots, patches=images))
    tokens = network.encode_semantic(images)
    assert torch.equal(stream[:, slots], network.embedding(ids))
    assert torch.equal(stream[:, [2, 3, 6, 7]], tokens)


def test_semantic_images_read_a_few_at_a_time_equal_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = fill_randomly(G2VLM(g2vlm_test(), frozenset({Part.SEMANTIC_ENCODER})))
    patches = torch.randn(2, 3, 8, network.config.semantic_encoder.patch_features)
    images = SemanticPatches(patches, 2, 4)
    with torch.no_grad():
        whole = network.encode_semantic(images)
        monkeypatch.setattr(network_module, "SEMANTIC_VIEWS_PER_CHUNK", 1)
        torch.testing.assert_close(network.encode_semantic(images), whole, atol=1e-5, rtol=0)
    assert whole.shape == (2, 6, 64)


def test_logits_are_those_of_the_slots_asked_for() -> None:
    network = fill_randomly(G2VLM(g2vlm_test(), frozenset({Part.MIXTURE, Part.LANGUAGE_HEAD})))
    every = network(text_inputs(), Wants(logit_slots=torch.arange(3))).logits
    last = network(text_inputs(), Wants(logit_slots=torch.tensor([2]))).logits
    assert every.shape == (1, 3, 512)
    torch.testing.assert_close(last[:, 0], every[:, 2])
    assert network(text_inputs(), Wants()).logits is None


def test_geometry_is_decoded_only_when_wanted() -> None:
    config = g2vlm_test()
    network = fill_randomly(G2VLM(config))
    positions = torch.zeros(3, 6, dtype=torch.long)
    layout = Layout((Block(1, 6, causal=False),), positions[:, :1], positions)
    inputs = ModelInputs(
        layout, torch.tensor([[1]]), torch.tensor([0]), Photographs(torch.rand(1, 1, 3, 28, 42))
    )
    with torch.no_grad():
        assert network(inputs, Wants()).geometry is None
        local = network(inputs, Wants(geometry=True)).geometry
        both = network(inputs, Wants(geometry=True, global_points=True)).geometry
    assert local.points_global is None
    assert both.points_global.shape == local.points_camera.shape == (1, 1, 28, 42, 3)
    assert local.confidence_logits is None
