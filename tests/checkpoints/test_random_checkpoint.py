"""Checkpoints of pseudo-random weights."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from g2vlm.checkpoints.loading import load_network
from g2vlm.checkpoints.random import random_checkpoint, random_network
from g2vlm.inputs.text import TextTokenizer
from g2vlm.model.config import Part, g2vlm_test
from g2vlm.model.precision import choose_placement

CPU32 = choose_placement("cpu", "float32")


def test_it_is_complete_and_its_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    first, second, other = (
        load_file(random_checkpoint(tmp_path / str(i), seed=seed) / "model.safetensors")
        for i, seed in enumerate((3, 3, 4))
    )
    assert first.keys() == second.keys() == other.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first)
    assert load_network(tmp_path / "0", CPU32).config == g2vlm_test()


def test_no_two_weights_are_alike(tmp_path: Path) -> None:
    weights = load_file(random_checkpoint(tmp_path) / "model.safetensors")
    attention = "language_model.model.layers.0.self_attn"
    assert not torch.equal(weights[f"{attention}.k_proj.weight"], weights[f"{attention}.v_proj.weight"])
    for key, weight in weights.items():
        assert bool(weight.isfinite().all()), key
        assert float(weight.std()) > 0, key


def test_it_is_written_in_the_type_asked_for(tmp_path: Path) -> None:
    weights = load_file(random_checkpoint(tmp_path, dtype=torch.bfloat16) / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}


def test_its_tokenizer_reads_every_byte_and_the_special_tokens(tmp_path: Path) -> None:
    tokenizer = TextTokenizer.from_folder(random_checkpoint(tmp_path))
    text = "How far? 你好 🙂\n"
    ids = tokenizer.encode(text)
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text
    assert len(tokenizer.encode("<|im_start|>a<|vision_end|>")) == 3
    assert tokenizer.vocab_size <= g2vlm_test().mixture.vocab_size


def test_a_random_network_needs_no_file() -> None:
    parts = frozenset({Part.CAMERA_HEAD})
    network = random_network(g2vlm_test(), choose_placement("cpu", "bfloat16"), parts=parts)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert not network.training
