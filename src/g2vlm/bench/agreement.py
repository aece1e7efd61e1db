"""How often a smaller language side chooses the same next token, after the same words."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from PIL import Image

from g2vlm.bench.results import Measurement
from g2vlm.bench.session import Session
from g2vlm.data.questions.making import make_questions
from g2vlm.data.samples import SceneSample
from g2vlm.data.splits import Split, split_seeds
from g2vlm.data.synthetic import ViewShape, render_sample
from g2vlm.data.world.config import full_world
from g2vlm.evaluation.results import Better
from g2vlm.inference.prompts import Prompt, PromptBuilder
from g2vlm.inputs.geometric import canvas_size, prepare_geometric
from g2vlm.inputs.photos import load_photos
from g2vlm.inputs.semantic import SemanticPreparation, prepare_semantic
from g2vlm.model.cache import CacheShape, KeyValueCache
from g2vlm.model.network import Wants
from g2vlm.model.quantization import Quantization
from g2vlm.opening import load
from g2vlm.pipeline import Model

ROOMS = 24
"""Test rooms whose pictures are asked about."""
VIEWS = 2
QUESTIONS = 4
"""Questions wanted about each room."""
ANSWER_TOKENS = 48
RENDER_ASPECT = (4, 3)


@torch.inference_mode()
def next_choices(model: Model, beginning: Prompt, answers: Mapping[str, Sequence[int]]) -> list[int]:
    """The likeliest token at every place of given answers.

    Args:
        model: with all parts that answering needs.
        beginning: the prompt with the photos, on the model's device; read once.
        answers: tokens of the answer to each question.
    """
    cache = KeyValueCache(
        CacheShape.of(model.config.mixture),
        beginning.inputs.layout.num_tokens,
        dtype=model.placement.precision.dtype,
        device=model.placement.device,
        growing=True,
    )
    model.network(beginning.inputs, Wants(), cache)
    prompts = PromptBuilder(model.tokenizer, model.config, model.placement.device)
    length, chosen = cache.length, []
    for question, answer in answers.items():
        before = prompts.question_ids(question)
        ids = before + list(answer[:-1])
        slots = torch.arange(len(before) - 1, len(ids), device=model.placement.device)
        inputs = prompts.text(ids, beginning.next_position).inputs
        logits = model.network(inputs, Wants(logit_slots=slots), cache).logits
        assert logits is not None
        chosen.extend(logits[0].argmax(dim=-1).tolist())
        cache.truncate(length)
    return chosen


def measure_agreement(session: Session) -> Iterator[Measurement]:
    """Quantized against full precision on a trained checkpoint, over its own answers about test rooms.

    Speed does not depend on what weights say, but this does: with random ones the two likeliest tokens are
    often nearly equal, and which of them wins means nothing.
    """
    name = session.plan.trained
    session.say(f"next tokens of {name} with a smaller language side")
    asked = _answered(_model(session, Quantization.NONE))
    full = _chosen(_model(session, Quantization.NONE), asked)
    for kind in session.quantizations:
        # One model at a time: a large one leaves no room for another.
        tokens = _chosen(_model(session, kind), asked)
        same = 100.0 * sum(one == other for one, other in zip(full, tokens, strict=True)) / len(full)
        label = f"same next token of {name}, {kind.value}"
        note = f"over {len(full)} tokens of answers about {ROOMS} test rooms"
        yield Measurement(f"agreement/{kind.value}", label, same, "%", Better.HIGHER, note=note)


_Asked = list[tuple[list[Image.Image], dict[str, tuple[int, ...]]]]
"""Photos of each room, and the tokens of the answer to each question about them."""


def _model(session: Session, kind: Quantization) -> Model:
    device, dtype = str(session.device), session.placement.precision.value
    return load(session.plan.trained, device=device, dtype=dtype, quantization=kind)


def _answered(model: Model) -> _Asked:
    asked: _Asked = []
    for sample in _rooms(model):
        photos, questions = _questions(sample)
        if questions:
            found = model.perceive(photos).ask_many(questions, max_new_tokens=ANSWER_TOKENS)
            answers = [answer.token_ids for answer in found]
            asked.append((photos, dict(zip(questions, answers, strict=True))))
    return asked


def _chosen(model: Model, asked: _Asked) -> list[int]:
    model.perceive(asked[0][0][:1])  # loads what is still missing
    return [
        token
        for photos, answers in asked
        for token in next_choices(model, _beginning(model, photos), answers)
    ]


def _rooms(model: Model) -> Iterator[SceneSample]:
    config = model.config
    patch, width = config.geometric_encoder.patch_size, config.image_width
    canvas = canvas_size(RENDER_ASPECT, width=width, patch=patch)
    for seed in split_seeds(Split.TEST, ROOMS):
        yield render_sample(full_world(), seed, ViewShape(VIEWS, canvas[1], canvas[0]))


def _questions(sample: SceneSample) -> tuple[list[Image.Image], list[str]]:
    """The pictures without markers, and questions about all of them that need none."""
    pixels = (sample.images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    made = make_questions(sample, 4 * QUESTIONS)
    fitting = [question.text for question in made if question.views == (0, 1) and not question.markers]
    return [Image.fromarray(view) for view in pixels], fitting[:QUESTIONS]


def _beginning(model: Model, photos: list[Image.Image]) -> Prompt:
    config = model.config
    read = load_photos(photos).photos
    patch = config.geometric_encoder.patch_size
    images = prepare_geometric(read, width=config.image_width, patch=patch).pixels
    side = config.semantic_encoder.image_side
    preparation = SemanticPreparation.from_file(model.folder / "preprocessor_config.json", side=side)
    prompts = PromptBuilder(model.tokenizer, config, model.placement.device)
    return prompts.chat_beginning(images, prepare_semantic(read, preparation), model.view_attention)
