"""Counted operations against torch's own counter, on the test-size network."""

import dataclasses

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from g2vlm.bench.work import (
    Attention,
    Format,
    Pass,
    Product,
    expert_layer_work,
    flops,
    token_bytes,
    work_of,
)
from g2vlm.checkpoints.random import random_network, write_byte_tokenizer
from g2vlm.inference.prompts import Prompt, PromptBuilder
from g2vlm.inputs.semantic import SemanticImages
from g2vlm.inputs.text import TextTokenizer
from g2vlm.model.cache import CacheShape, KeyValueCache
from g2vlm.model.config import EncoderWindows, G2VLMConfig, ViewAttention, g2vlm_2b, g2vlm_test
from g2vlm.model.network import G2VLM, Wants
from g2vlm.model.precision import choose_placement

HEIGHT, WIDTH = 42, 56
PATCHES = HEIGHT * WIDTH // 14**2


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_byte_tokenizer(folder)
    return TextTokenizer.from_folder(folder)


def with_windows(config: G2VLMConfig, windows: EncoderWindows) -> G2VLMConfig:
    return dataclasses.replace(
        config, geometric_encoder=dataclasses.replace(config.geometric_encoder, windows=windows)
    )


def network_of(config: G2VLMConfig) -> G2VLM:
    return random_network(config, choose_placement("cpu", "float32"))


def matrix_vector_flops(matrix: tuple[int, ...], *others: object, **options: object) -> int:
    """Torch's counter does not know the matrix-vector product."""
    return 2 * matrix[0] * matrix[1]


def attention_flops(
    queries: tuple[int, ...], keys: tuple[int, ...], *others: object, **options: object
) -> int:
    """Nor the attention kernel of a CPU, where it is called by name."""
    batch, heads, tokens, channels = queries
    return 4 * batch * heads * tokens * keys[2] * channels


UNKNOWN = {
    torch.ops.aten.mv: matrix_vector_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
}


def counted(network: G2VLM, prompt: Prompt, wants: Wants, cache: KeyValueCache | None = None) -> int:
    """What torch counts; the plain attention is used because its products are visible to the counter."""
    counter = FlopCounterMode(display=False, custom_mapping=UNKNOWN)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        network(prompt.inputs, wants, cache)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("windows", list(EncoderWindows))
@pytest.mark.parametrize("attention", list(ViewAttention))
def test_reconstruction(
    tokenizer: TextTokenizer, views: int, windows: EncoderWindows, attention: ViewAttention
) -> None:
    config = with_windows(g2vlm_test(), windows)
    prompts = PromptBuilder(tokenizer, config, torch.device("cpu"))
    prompt = prompts.reconstruction(torch.rand(views, 3, HEIGHT, WIDTH), attention)
    work = work_of(config, Pass(prompt.inputs.layout, views, PATCHES, geometry=True))
    assert flops(work) == counted(network_of(config), prompt, Wants(geometry=True))


def test_confidence_head_counts(tokenizer: TextTokenizer) -> None:
    small = g2vlm_test()
    config = dataclasses.replace(small, heads=dataclasses.replace(small.heads, confidence=True))
    prompt = PromptBuilder(tokenizer, config, torch.device("cpu")).reconstruction(
        torch.rand(2, 3, HEIGHT, WIDTH), ViewAttention.GLOBAL
    )
    read = Pass(prompt.inputs.layout, 2, PATCHES, geometry=True)
    expected = counted(network_of(config), prompt, Wants(geometry=True))
    assert flops(work_of(config, read)) == expected > flops(work_of(small, read))


def test_perception_question_and_token(tokenizer: TextTokenizer) -> None:
    config, views = g2vlm_test(), 2
    network, prompts = network_of(config), PromptBuilder(tokenizer, config, torch.device("cpu"))
    side = 2 * (config.semantic_encoder.image_side // 28)
    patches = torch.rand(views, side * side, config.semantic_encoder.patch_features)
    beginning = prompts.chat_beginning(
        torch.rand(views, 3, HEIGHT, WIDTH), SemanticImages(patches, side, side), ViewAttention.GLOBAL
    )
    cache = KeyValueCache(CacheShape.of(config.mixture), 1000)
    read = Pass(beginning.inputs.layout, views, PATCHES, semantic_patches=side * side)
    assert flops(work_of(config, read)) == counted(network, beginning, Wants(), cache)

    for length in (17, 1):
        prompt = prompts.text(list(range(length)), beginning.next_position)
        past = cache.length
        asked = Pass(prompt.inputs.layout, past=past, logit_slots=1)
        wants = Wants(logit_slots=torch.tensor([length - 1]))
        assert flops(work_of(config, asked)) == counted(network, prompt, wants, cache)
        assert cache.length == past + length


def test_heads_are_counted_in_float32(tokenizer: TextTokenizer) -> None:
    config = g2vlm_test()
    prompt = PromptBuilder(tokenizer, config, torch.device("cpu")).reconstruction(
        torch.rand(1, 3, HEIGHT, WIDTH), ViewAttention.GLOBAL
    )
    whole = work_of(config, Pass(prompt.inputs.layout, 1, PATCHES, geometry=True))
    towers = work_of(config, Pass(prompt.inputs.layout, 1, PATCHES))
    heads = whole - towers
    assert {step.format for step in heads} == {Format.FLOAT32}
    assert {step.format for step in towers} == {Format.TOWER}


def test_steps() -> None:
    assert Product(3, 5, 7).flops == 2 * 3 * 5 * 7
    assert Attention(2, 4, 2, 10, 20, 8).flops == 2 * 4 * (2 * 10 * 20 * 8 + 2 * 10 * 8 * 20)


def test_bytes_of_a_token() -> None:
    """The semantic expert of the released size: 1777 M parameters less the embedding, which is not read."""
    config = g2vlm_2b().mixture
    matrices = token_bytes(config, 0, weight_bytes=1, memory_bytes=1)
    assert matrices == pytest.approx(1777e6 - config.width * config.vocab_size, rel=0.001)
    with_past = token_bytes(config, 1000, weight_bytes=1, memory_bytes=2)
    assert with_past - matrices == 1000 * 2 * 28 * 2 * 128 * 2


def test_expert_layer_matches_its_parameters() -> None:
    config = g2vlm_2b().mixture
    matrices = sum(step.inner * step.outer * count for step, count in expert_layer_work(config, 1).items())
    assert matrices == pytest.approx(1310e6 / 28, rel=0.01)
