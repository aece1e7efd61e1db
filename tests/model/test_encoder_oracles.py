"""Both encoders and the semantic expert against transformers' own classes on random small networks.

The weights go through the table of released names, so that the table is checked against the structure of
the reference classes as well.
"""

from collections.abc import Iterator

import pytest
import torch
from random_weights import fill_randomly
from torch import Tensor, nn

from g2vlm.checkpoints.saving import released_tensors
from g2vlm.model.config import (
    EncoderWindows,
    G2VLMConfig,
    GeometricEncoderConfig,
    HeadsConfig,
    MixtureConfig,
    Part,
    SemanticEncoderConfig,
    ViewAttention,
)
from g2vlm.model.geometric_encoder import MEAN, STD
from g2vlm.model.layout import Block, Layout, Streams
from g2vlm.model.network import G2VLM, SemanticPatches

TOLERANCE = 1e-5
SMALL_MIXTURE = MixtureConfig(
    vocab_size=40, width=32, mlp_width=24, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=16,
    rope_sections=(2, 3, 3),
)  # fmt: skip
SMALL_HEADS = HeadsConfig(num_blocks=1, num_heads=2, mlp_width=16, point_width=8, camera_width=8)


@pytest.fixture(autouse=True)
def quiet_reference() -> Iterator[None]:
    """Small vocabularies make the reference log remarks about token ids that play no part here."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(before)


def build(part: Part, seed: int, **parts: object) -> G2VLM:
    config = G2VLMConfig(**{"mixture": SMALL_MIXTURE, "heads": SMALL_HEADS, **parts})
    return fill_randomly(G2VLM(config, frozenset({part})), seed)


def released_weights(network: G2VLM, prefix: str) -> dict[str, Tensor]:
    stored = {tensor.key: tensor.make().reshape(tensor.shape) for tensor in released_tensors(network)}
    return {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}


def fill_reference(reference: nn.Module, weights: dict[str, Tensor], renamed: dict[str, str]) -> None:
    """Load strictly; `renamed` lists names that releases of the reference spell differently in memory."""
    own = reference.state_dict().keys()
    named = {}
    for key, value in weights.items():
        other = key
        for released, in_memory in renamed.items():
            other = other.replace(released, in_memory)
        named[key if key in own else other] = value
    reference.load_state_dict(named, strict=True)
    reference.eval().requires_grad_(False)


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() / expected.abs().max()) <= TOLERANCE


@pytest.mark.parametrize(
    ("width", "heads", "layers", "grid", "views", "size"),
    [
        (32, 2, 2, 4, 1, (56, 56)),  # the table's own grid: not resized
        (24, 3, 1, 5, 3, (42, 98)),
        (64, 4, 2, 7, 2, (84, 28)),
    ],
)
def test_geometric_encoder_equals_dinov2_with_registers(
    width: int, heads: int, layers: int, grid: int, views: int, size: tuple[int, int]
) -> None:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    sizes = GeometricEncoderConfig(
        num_layers=layers, width=width, num_heads=heads, mlp_width=4 * width, position_grid=grid,
        windows=EncoderWindows.PER_VIEW,
    )  # fmt: skip
    network = build(Part.GEOMETRIC_ENCODER, width, geometric_encoder=sizes)
    reference = Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            image_size=grid * 14,
            patch_size=14,
            num_register_tokens=4,
        )
    )
    renamed = {
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
    }
    fill_reference(reference, released_weights(network, "dino_model."), renamed)
    images = torch.rand(1, views, 3, *size, generator=torch.Generator().manual_seed(1))
    normed = (images[0] - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.inference_mode():
        found = network.geometric_encoder(images)[0]
        expected = reference(normed).last_hidden_state[:, 5:]
    assert_close(found, expected)


@pytest.mark.parametrize(
    ("width", "heads", "layers", "out_width", "views", "grid"),
    [(32, 2, 2, 32, 1, (4, 4)), (48, 3, 1, 32, 3, (2, 8)), (64, 4, 2, 64, 2, (6, 4))],
)
def test_semantic_encoder_equals_the_qwen2_vl_tower(
    width: int, heads: int, layers: int, out_width: int, views: int, grid: tuple[int, int]
) -> None:
    from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

    sizes = SemanticEncoderConfig(num_layers=layers, width=width, num_heads=heads, mlp_width=4 * width)
    mixture = MixtureConfig(
        vocab_size=40, width=out_width, mlp_width=24, num_layers=1, num_heads=2, num_kv_heads=1,
        head_dim=16, rope_sections=(2, 3, 3),
    )  # fmt: skip
    network = build(Part.SEMANTIC_ENCODER, width, semantic_encoder=sizes, mixture=mixture)
    reference = Qwen2VisionTransformerPretrainedModel(
        Qwen2VLVisionConfig(depth=layers, embed_dim=width, hidden_size=out_width, num_heads=heads)
    )
    fill_reference(reference, released_weights(network, "vit_model."), {})
    patches = torch.randn(
        1, views, grid[0] * grid[1], sizes.patch_features, generator=torch.Generator().manual_seed(1)
    )
    with torch.inference_mode():
        found = network.encode_semantic(SemanticPatches(patches, *grid))[0]
        expected = reference(patches.flatten(0, 2), grid_thw=torch.tensor([[1, *grid]] * views)).pooler_output
    assert_close(found, expected)


class NormedProjection(nn.Module):
    """A projection followed by an RMSNorm of each head, which Qwen2-VL itself does not have."""

    def __init__(self, projection: nn.Linear, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.projection, self.weight, self.eps = projection, weight, eps

    def forward(self, x: Tensor) -> Tensor:
        heads = self.projection(x).unflatten(-1, (-1, len(self.weight)))
        heads = heads / (heads.square().mean(-1, keepdim=True) + self.eps).sqrt() * self.weight
        return heads.flatten(-2)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "sections", "layers"),
    [(2, 1, 16, (2, 3, 3), 2), (4, 2, 8, (1, 1, 2), 1), (3, 3, 128, (16, 24, 24), 1)],
)
def test_semantic_expert_equals_the_qwen2_vl_decoder(
    heads: int, kv_heads: int, head_dim: int, sections: tuple[int, int, int], layers: int
) -> None:
    from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLTextModel

    width = heads * head_dim
    sizes = MixtureConfig(
        vocab_size=40, width=width, mlp_width=40, num_layers=layers, num_heads=heads,
        num_kv_heads=kv_heads, head_dim=head_dim, rope_sections=sections,
    )  # fmt: skip
    network = build(Part.MIXTURE, width, mixture=sizes, heads=HeadsConfig(num_heads=1))
    reference = Qwen2VLTextModel(
        Qwen2VLTextConfig(
            vocab_size=40,
            hidden_size=width,
            intermediate_size=40,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            rms_norm_eps=1e-6,
            bos_token_id=0,
            eos_token_id=0,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": sizes.rope_theta,
                "mrope_section": list(sections),
            },
        )
    )
    weights = released_weights(network, "language_model.model.")
    plain = {
        key: value
        for key, value in weights.items()
        if "_moe_geo" not in key and not any(part in key for part in ("q_norm", "k_norm", ".ls1.", ".ls2."))
    }
    fill_reference(reference, plain, {})
    for i, layer in enumerate(reference.layers):
        for name in "qk":
            projection = getattr(layer.self_attn, f"{name}_proj")
            norm = weights[f"layers.{i}.self_attn.{name}_norm.weight"]
            setattr(layer.self_attn, f"{name}_proj", NormedProjection(projection, norm, 1e-6))
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, 40, (2, 9), generator=generator)
    positions = torch.randint(0, 30, (2, 3, 9), generator=generator)
    layout = Layout((Block(9, 0, causal=True),), positions, torch.empty(2, 3, 0, dtype=torch.long))
    with torch.inference_mode():
        embedded = network.embedding(ids)
        found = network.mixture(Streams(embedded, torch.empty(2, 0, width)), layout).semantic
        expected = reference(input_ids=ids, position_ids=positions.transpose(0, 1)).last_hidden_state
    assert_close(found, expected)


def test_the_reference_would_notice_an_exchanged_axis() -> None:
    """Height and width are not interchangeable in the comparison above: exchanging them is visible."""
    network = build(Part.MIXTURE, 5)
    ids = torch.arange(6)[None]
    positions = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 1, 1, 2, 2, 9], [0, 3, 4, 3, 4, 9]])
    outputs = []
    for order in ([0, 1, 2], [0, 2, 1]):
        layout = Layout((Block(6, 0, causal=True),), positions[order], torch.empty(3, 0, dtype=torch.long))
        embedded = network.embedding(ids)
        outputs.append(network.mixture(Streams(embedded, torch.empty(1, 0, 32)), layout).semantic)
    assert float((outputs[0] - outputs[1]).abs().max()) > 100 * TOLERANCE


def test_default_view_attention_is_the_released_one() -> None:
    assert G2VLMConfig().view_attention is ViewAttention.GLOBAL
    assert GeometricEncoderConfig().windows is EncoderWindows.RELEASED
