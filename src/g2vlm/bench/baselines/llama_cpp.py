"""llama.cpp on random weights in the shape of the semantic expert, in three number formats."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from g2vlm.errors import MissingExtraError
from g2vlm.model.config import MixtureConfig

SPREAD = 0.02
"""Standard deviation of the weights: speed does not depend on it."""


class Stored(Enum):
    """Number format of the matrices; names as in GGUF."""

    BF16 = "BF16"
    """Two bytes a weight."""
    Q8_0 = "Q8_0"
    """One byte a weight, and a scale for 32 of them."""
    Q4_0 = "Q4_0"
    """Half a byte a weight, and a scale for 32 of them, the language head included."""


def require_llama_cpp() -> None:
    """Check that it is installed.

    Raises:
        MissingExtraError: it is not.
    """
    try:
        import gguf  # noqa: F401
        import xllamacpp  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("The comparison with llama.cpp", "bench-baselines") from error


def write_gguf(path: Path, config: MixtureConfig, stored: Stored) -> None:
    """Write the semantic expert as a Qwen2 language model of random weights.

    Args:
        path: a file ending in .gguf.
        config: the mixture; its other expert is left out, and so are norms of queries and keys.
        stored: number format of the matrices.
    """
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    writer = GGUFWriter(path, "qwen2")
    _describe(writer, config)
    kind, generator = GGMLQuantizationType[stored.value], np.random.default_rng(0)
    for name, shape in _shapes(config):
        if len(shape) == 1:
            writer.add_tensor(name, np.full(shape, 0 if name.endswith("bias") else 1, np.float32))
            continue
        values = generator.standard_normal(shape, dtype=np.float32) * SPREAD
        writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: Any, config: MixtureConfig) -> None:
    writer.add_context_length(32768)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([f"t{index}" for index in range(config.vocab_size)])
    writer.add_token_types([1] * config.vocab_size)
    writer.add_token_merges(["t 0"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)


def _shapes(config: MixtureConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, attended = config.width, config.num_heads * config.head_dim
    yield "token_embd.weight", (config.vocab_size, width)
    yield "output.weight", (config.vocab_size, width)
    yield "output_norm.weight", (width,)
    for layer in range(config.num_layers):
        block = f"blk.{layer}"
        yield f"{block}.attn_norm.weight", (width,)
        yield f"{block}.ffn_norm.weight", (width,)
        for name, heads in (("q", config.num_heads), ("k", config.num_kv_heads), ("v", config.num_kv_heads)):
            yield f"{block}.attn_{name}.weight", (heads * config.head_dim, width)
            yield f"{block}.attn_{name}.bias", (heads * config.head_dim,)
        yield f"{block}.attn_output.weight", (width, attended)
        yield f"{block}.ffn_gate.weight", (config.mlp_width, width)
        yield f"{block}.ffn_up.weight", (config.mlp_width, width)
        yield f"{block}.ffn_down.weight", (width, config.mlp_width)


class LlamaCpp:
    """A loaded model, timed by its own clock.

    Args:
        path: what `write_gguf` wrote.
        vocabulary: number of words.
        context: most tokens that are ever in memory.
        threads: of the CPU.
    """

    def __init__(self, path: Path, vocabulary: int, context: int, threads: int) -> None:
        import xllamacpp

        options = xllamacpp.CommonParams()
        options.model.path = str(path)
        options.n_ctx = context
        options.n_parallel = 1
        options.n_gpu_layers = 0
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = threads
        options.verbosity = 0
        self._server = xllamacpp.Server(options)
        self._vocabulary = vocabulary
        self._generator = np.random.default_rng(0)

    def seconds_per_token(self, past: int, num_tokens: int) -> float:
        """Greedy decoding behind `past` tokens: the mean time of a token, reading the past left out."""
        # The first of them comes out of reading the prompt, as with our own figure.
        found = self._complete(self._beginning(past), num_tokens + 1)
        return float(found["predicted_ms"]) / 1000 / num_tokens

    def prefill_seconds(self, count: int, past: int) -> float:
        """Reading `count` new tokens behind `past` ones that it has read before."""
        new = self._generator.integers(1, self._vocabulary, count).tolist()
        if past:
            self._complete(self._beginning(past), 1)
        found = self._complete(self._beginning(past) + new, 1)
        return float(found["prompt_ms"]) / 1000 * count / float(found["prompt_n"])

    def _beginning(self, past: int) -> list[int]:
        return (np.arange(past) % (self._vocabulary - 1) + 1).tolist()

    def _complete(self, prompt: list[int], num_tokens: int) -> dict[str, Any]:
        request = {
            "prompt": prompt,
            "n_predict": num_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "cache_prompt": True,
        }
        timings: dict[str, Any] = self._server.handle_completions(request)["timings"]
        return timings
