"""The small network that ships with the package: its sizes and its tokenizer."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from g2vlm.checkpoints.random import SPECIAL_TOKENS
from g2vlm.data.questions.everyday import WORLD_NOUNS, everyday_question
from g2vlm.data.questions.making import make_questions
from g2vlm.data.questions.observations import Observations
from g2vlm.data.questions.phrasing.rephrasing import Phrasing, ReasoningWish, rephrased, with_wish
from g2vlm.data.questions.phrasing.vocabulary import SYNONYMS, plural_of
from g2vlm.data.samples import SceneSample
from g2vlm.data.splits import Split, split_seeds
from g2vlm.data.synthetic import ViewShape, render_batch
from g2vlm.data.world.config import full_world
from g2vlm.data.world.draws import Draws
from g2vlm.data.world.layout import make_room
from g2vlm.inputs import spans as words
from g2vlm.model.config import (
    EncoderWindows,
    G2VLMConfig,
    GeometricEncoderConfig,
    HeadsConfig,
    MixtureConfig,
    SemanticEncoderConfig,
)

TINY_VOCABULARY = 768
"""Rows of the embedding: the tokenizer is trained to fit."""

SMALL_VOCABULARY = 1536
"""The same of the model for photographs, whose world has more names and is asked about in more words."""

_NAME_REPEATS = 20
_WORDS_STREAM = 6_000_000

PROMPT_LINES = (
    words.RECONSTRUCTION_REQUEST,
    "system\nYou are a helpful assistant.",
    "user\n",
    "assistant\n",
)
"""Text of the prompts themselves; every word of them becomes a token of its own."""


def g2vlm_tiny() -> G2VLMConfig:
    """About ten million parameters: photos of 112 pixels width in patches of 14 pixels."""
    return G2VLMConfig(
        geometric_encoder=GeometricEncoderConfig(
            num_layers=4,
            width=192,
            num_heads=3,
            mlp_width=768,
            num_registers=2,
            position_grid=8,
            windows=EncoderWindows.PER_VIEW,
        ),
        semantic_encoder=SemanticEncoderConfig(
            num_layers=3, width=128, num_heads=2, mlp_width=384, image_side=112
        ),
        mixture=MixtureConfig(
            vocab_size=TINY_VOCABULARY,
            width=192,
            mlp_width=512,
            num_layers=6,
            num_heads=3,
            num_kv_heads=3,
            head_dim=64,
            # Positions of small pictures are small: a base of 1e6 would leave columns indistinguishable.
            rope_theta=100.0,
            rope_sections=(8, 12, 12),
        ),
        heads=HeadsConfig(num_blocks=1, num_heads=3, mlp_width=512, point_width=192, camera_width=192),
        image_width=112,
    )


def g2vlm_small() -> G2VLMConfig:
    """About eleven million parameters: photos of 224 pixels width, of any shape."""
    base = g2vlm_tiny()
    encoder = dataclasses.replace(base.geometric_encoder, num_layers=5, position_grid=16)
    # Photos show small things: 36 semantic tokens a view where rooms of the small model have 16.
    semantic = dataclasses.replace(base.semantic_encoder, image_side=168)
    mixture = dataclasses.replace(base.mixture, vocab_size=SMALL_VOCABULARY)
    return dataclasses.replace(
        base, geometric_encoder=encoder, semantic_encoder=semantic, mixture=mixture, image_width=224
    )


def tiny_lines(num_rooms: int = 120) -> list[str]:
    """Text that the tokenizer of the small models learns from: questions and answers of training rooms.

    Names of things become tokens of their own, whatever the assets that a world is drawn with; words that
    a model does not know fall into pieces, by which it can tell them.
    """
    config = full_world()
    lines: list[str] = []
    for first in range(0, num_rooms, 20):
        seeds = split_seeds(Split.TRAIN, 20, first)
        rooms = [make_room(seed, config) for seed in seeds]
        # Small pictures: only the words matter.
        batch = render_batch(config, rooms, ViewShape(2, 48, 64))
        for i in range(len(rooms)):
            lines += _spoken_about(batch.sample(i))
    names = {*WORLD_NOUNS, *(other for noun in SYNONYMS for other in SYNONYMS[noun])}
    for noun in sorted(names):
        lines += [f"the {noun} is", f"{plural_of(noun)}, {noun}"] * _NAME_REPEATS
    return lines


def _spoken_about(sample: SceneSample) -> list[str]:
    """Questions of every kind about one room, in the benchmark's words and in free ones, with answers."""
    lines: list[str] = []
    draws = Draws(sample.room.seed, _WORDS_STREAM)
    for question in make_questions(sample, 14):
        free = rephrased(question, Phrasing.FREE, draws)
        lines += [question.text, question.reasoned_answer, *question.choices]
        lines.append(with_wish(free.text, draws.choice(tuple(ReasoningWish)), draws))
    seen = Observations(sample)
    for _ in range(6):
        everyday = everyday_question(seen, draws)
        lines += [] if everyday is None else [everyday.text, everyday.given_answer]
    return lines


def train_tokenizer(lines: Iterable[str], folder: Path, vocabulary: int = TINY_VOCABULARY) -> Path:
    """Train a byte-level tokenizer in the layout of Qwen2's and write it with the image preparation's file.

    Digits stand alone, so that numbers are written digit by digit; special tokens take the last ids.

    Args:
        lines: text to learn merges from, such as questions and answers of the synthetic world.
        folder: where `tokenizer.json` and `tokenizer_config.json` go; created if needed.
        vocabulary: number of ids, special tokens included.

    Returns:
        The folder.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Repeated, so that the words of the prompts win their merges whatever the other text.
    tokenizer.train_from_iterator([*lines, *PROMPT_LINES * 2000], trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": words.TURN_END,
        "pad_token": SPECIAL_TOKENS[0],
        "model_max_length": 4096,
        "add_prefix_space": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return folder


def write_preparation(config: G2VLMConfig, folder: Path) -> None:
    """Write the `preprocessor_config.json` of the semantic images beside the weights."""
    encoder = config.semantic_encoder
    facts = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": encoder.patch_size,
        "merge_size": encoder.merge_size,
        "temporal_patch_size": encoder.temporal_patch_size,
        "min_pixels": (encoder.patch_size * encoder.merge_size) ** 2,
        "max_pixels": 12_845_056,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
