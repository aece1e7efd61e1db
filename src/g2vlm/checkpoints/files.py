"""Configuration files of a checkpoint folder, released or our own.

A released folder says its sizes in `text_config.json`, `vit_config.json` and `dino_config.json`; some facts
hold whatever these files say and are set here. Our own folders add `g2vlm.json`, which is complete.
"""

import dataclasses
import json
from enum import Enum
from pathlib import Path
from typing import Any

from g2vlm.errors import CheckpointError
from g2vlm.model.config import (
    EncoderWindows,
    G2VLMConfig,
    GeometricEncoderConfig,
    HeadsConfig,
    MixtureConfig,
    SemanticEncoderConfig,
    ViewAttention,
)

OWN_CONFIG = "g2vlm.json"
WEIGHTS = "model.safetensors"
RELEASED_SECTIONS = (16, 24, 24)
FORMAT_VERSION = 1


def read_config(folder: Path, *, has_confidence: bool = False) -> G2VLMConfig:
    """Read the configuration of a checkpoint folder.

    Args:
        folder: holds either `g2vlm.json` or the three released files.
        has_confidence: whether the weights hold a confidence head (the released files do not say).

    Raises:
        CheckpointError: a file is missing, is not JSON, or lacks an entry.
    """
    own = folder / OWN_CONFIG
    if own.is_file():
        return _from_own(_read_json(own), own)
    text, vision, dino = (_read_json(folder / f"{name}_config.json") for name in ("text", "vit", "dino"))
    try:
        return _from_released(text, vision, dino, has_confidence)
    except KeyError as error:
        raise CheckpointError(
            f"{folder}: expected the entry {error} in the released configuration files; "
            "download the checkpoint again."
        ) from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(
            f"{folder}: the released configuration files do not describe a g2vlm network ({error}); "
            "download the checkpoint again."
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"Expected {path.name} in {path.parent}, found none: a checkpoint folder holds {WEIGHTS}, "
            "text_config.json, vit_config.json, dino_config.json and a tokenizer."
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable JSON file: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object, found a {type(content).__name__}.")
    return content


def _from_released(
    text: dict[str, Any], vision: dict[str, Any], dino: dict[str, Any], has_confidence: bool
) -> G2VLMConfig:
    width, heads = text["hidden_size"], text["num_attention_heads"]
    mixture = MixtureConfig(
        vocab_size=text["vocab_size"],
        width=width,
        mlp_width=text["intermediate_size"],
        num_layers=text["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=text["num_key_value_heads"],
        head_dim=width // heads,
        norm_eps=text.get("rms_norm_eps", 1e-6),
        rope_theta=text.get("rope_theta", 1e6),
        rope_sections=RELEASED_SECTIONS,
    )
    semantic = SemanticEncoderConfig(
        num_layers=vision["depth"],
        width=vision["embed_dim"],
        num_heads=vision["num_heads"],
        mlp_width=int(vision["embed_dim"] * vision.get("mlp_ratio", 4)),
        patch_size=14,
        temporal_patch_size=vision.get("temporal_patch_size", 2),
        merge_size=vision.get("spatial_merge_size", 2),
    )
    patch = dino.get("patch_size", 14)
    geometric = GeometricEncoderConfig(
        num_layers=dino["num_hidden_layers"],
        width=dino["hidden_size"],
        num_heads=dino["num_attention_heads"],
        mlp_width=int(dino["hidden_size"] * dino.get("mlp_ratio", 4)),
        patch_size=patch,
        num_registers=dino.get("num_register_tokens", 4),
        position_grid=dino.get("image_size", 518) // patch,
        norm_eps=dino.get("layer_norm_eps", 1e-6),
        windows=EncoderWindows.RELEASED,
    )
    decoders = HeadsConfig(mlp_width=4 * width, confidence=has_confidence)
    return G2VLMConfig(geometric, semantic, mixture, decoders)


def config_of_towers(qwen: dict[str, Any], dino: dict[str, Any]) -> G2VLMConfig:
    """The network whose towers have the sizes of public ones.

    Args:
        qwen: `config.json` of a Qwen2-VL folder: flat as published, or with `text_config` as saved today.
        dino: `config.json` of a folder of DINOv2 with registers.

    Raises:
        CheckpointError: an entry is missing, or the sizes do not fit together.
    """
    text = {**qwen, **qwen.get("text_config", {})}
    text |= text.get("rope_parameters") or {}
    try:
        return _from_released(text, qwen["vision_config"], dino, has_confidence=False)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(
            "Expected the sizes of Qwen2-VL and of DINOv2 with registers, but their config.json do not fit a "
            f"g2vlm network ({error!r}): use the published folders."
        ) from error


def _from_own(content: dict[str, Any], path: Path) -> G2VLMConfig:
    version = content.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: expected format_version {FORMAT_VERSION}, got {version!r}: update g2vlm."
        )
    try:
        geometric = dict(content.pop("geometric_encoder"))
        mixture = dict(content.pop("mixture"))
        return G2VLMConfig(
            geometric_encoder=GeometricEncoderConfig(
                **{**geometric, "windows": EncoderWindows(geometric["windows"])}
            ),
            semantic_encoder=SemanticEncoderConfig(**content.pop("semantic_encoder")),
            mixture=MixtureConfig(**{**mixture, "rope_sections": tuple(mixture["rope_sections"])}),
            heads=HeadsConfig(**content.pop("heads")),
            view_attention=ViewAttention(content.pop("view_attention")),
            **content,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not describe a g2vlm network: {error}") from error


def own_config_text(config: G2VLMConfig) -> str:
    """The content of `g2vlm.json`."""

    def plain(value: object) -> object:
        if isinstance(value, Enum):
            return value.value
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return list(value) if isinstance(value, tuple) else value

    content = {"format_version": FORMAT_VERSION, **dataclasses.asdict(config)}
    return json.dumps(plain(content), indent=1) + "\n"


def released_config_texts(config: G2VLMConfig) -> dict[str, str]:
    """The contents of the three released configuration files, by file name."""
    mixture, semantic, geometric = config.mixture, config.semantic_encoder, config.geometric_encoder
    text = {
        "vocab_size": mixture.vocab_size,
        "hidden_size": mixture.width,
        "intermediate_size": mixture.mlp_width,
        "num_hidden_layers": mixture.num_layers,
        "num_attention_heads": mixture.num_heads,
        "num_key_value_heads": mixture.num_kv_heads,
        "rms_norm_eps": mixture.norm_eps,
        "rope_theta": mixture.rope_theta,
        "rope_scaling": {"type": "mrope", "mrope_section": list(mixture.rope_sections)},
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }
    vision = {
        "depth": semantic.num_layers,
        "embed_dim": semantic.width,
        "hidden_size": mixture.width,
        "num_heads": semantic.num_heads,
        "mlp_ratio": semantic.mlp_width / semantic.width,
        "patch_size": semantic.patch_size,
        "spatial_merge_size": semantic.merge_size,
        "temporal_patch_size": semantic.temporal_patch_size,
        "in_channels": 3,
    }
    dino = {
        "hidden_size": geometric.width,
        "num_hidden_layers": geometric.num_layers,
        "num_attention_heads": geometric.num_heads,
        "mlp_ratio": geometric.mlp_width / geometric.width,
        "patch_size": geometric.patch_size,
        "image_size": geometric.position_grid * geometric.patch_size,
        "num_register_tokens": geometric.num_registers,
        "layer_norm_eps": geometric.norm_eps,
        "layerscale_value": 1.0,
        "hidden_act": "gelu",
        "use_swiglu_ffn": False,
        "qkv_bias": True,
    }
    named = {"text_config.json": text, "vit_config.json": vision, "dino_config.json": dino}
    return {name: json.dumps(content, indent=1) + "\n" for name, content in named.items()}
