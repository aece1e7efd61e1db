"""A public library doing the same work: Qwen2-VL of transformers in the shape of the semantic expert."""

import time
import warnings
from typing import Any

import torch

from g2vlm.model.config import MixtureConfig
from g2vlm.model.precision import Placement


class TransformersDecoder:
    """`Qwen2VLForConditionalGeneration` with random weights, and its own greedy `generate`.

    It has the layers, widths, heads and vocabulary of the semantic expert, the same precision and as many
    tokens before the answer; its vision tower is one small layer that decoding never runs.

    Args:
        config: the mixture whose semantic expert is copied in shape.
        placement: device and precision.
        past: text tokens before the answer.
    """

    def __init__(self, config: MixtureConfig, placement: Placement, past: int) -> None:
        self._placement = placement
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            self._model = _build(config, placement.precision.dtype).to(placement.device).eval()
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, config.vocab_size, (1, past), generator=generator)
        self._ids = ids.to(placement.device)

    def seconds_per_token(self, num_tokens: int, cache: str | None) -> float:
        """Greedy generation; the mean time between tokens, the first (reading what stands before) left out.

        Args:
            num_tokens: tokens to write.
            cache: transformers' name of a cache kind ("static"), or None for its default, a growing one.
        """
        clock = _Clock(self._placement.device)
        options: dict[str, Any] = {"cache_implementation": cache} if cache else {}
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._model.generate(
                input_ids=self._ids,
                attention_mask=torch.ones_like(self._ids),
                max_new_tokens=num_tokens + 1,
                min_new_tokens=num_tokens + 1,
                do_sample=False,
                streamer=clock,
                **options,
            )
        return clock.mean_interval


class _Clock:
    """Stands where transformers sends its tokens, and notes when each of them came."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        """The prompt comes first, then one token at a time."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is left to do."""

    @property
    def mean_interval(self) -> float:
        """Seconds between the first token and the last, for each token between."""
        first, *rest = self._times[1:]
        return (rest[-1] - first) / len(rest)


def _build(config: MixtureConfig, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForImageTextToText, Qwen2VLConfig

    text = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": config.rope_theta,
            "mrope_section": list(config.rope_sections),
        },
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    vision = {"depth": 1, "embed_dim": 32, "num_heads": 2, "hidden_size": config.width, "mlp_ratio": 1}
    whole = Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    model: Any = AutoModelForImageTextToText.from_config(whole, dtype=dtype)
    return model
