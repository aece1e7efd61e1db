"""Public towers at a size for tests, in their published layouts."""

import json
import warnings
from pathlib import Path

import torch

from g2vlm.checkpoints.random import write_byte_tokenizer

SIDE = 70
"""Pixels of the pictures that the geometric tower was made for."""


def save_small_towers(folder: Path) -> tuple[Path, Path]:
    """Small random towers as transformers saves them, which is how they are published."""
    from transformers import (
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
    )

    text = {
        "vocab_size": 512,
        "hidden_size": 256,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    vision = {"depth": 2, "embed_dim": 64, "num_heads": 2, "hidden_size": 256, "mlp_ratio": 2}
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        dino = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**sizes, patch_size=14))
        config = Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)
        qwen = Qwen2VLForConditionalGeneration(config)
        for parameter in [*dino.parameters(), *qwen.parameters()]:
            parameter.data.normal_(std=0.05)
        dino.save_pretrained(folder / "dino")
        qwen.save_pretrained(folder / "qwen")
    write_byte_tokenizer(folder / "qwen")
    preparation = {"patch_size": 14, "min_pixels": 3136, "max_pixels": 12845056}
    (folder / "qwen" / "preprocessor_config.json").write_text(json.dumps(preparation))
    return folder / "dino", folder / "qwen"
