"""What a recipe will need, found out without allocating it."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from g2vlm.checkpoints.files import read_config
from g2vlm.checkpoints.hub import choose_checkpoint
from g2vlm.errors import G2VLMError
from g2vlm.inference.prompts import layout_of, text_of
from g2vlm.inputs.spans import ImageTokens, SpanBuilder
from g2vlm.model.config import G2VLMConfig
from g2vlm.model.layout import Layout
from g2vlm.model.network import G2VLM, ModelInputs, Photographs, SemanticPatches, Wants
from g2vlm.model.precision import Precision, cast_
from g2vlm.training.lora import add_lora_, freeze_all_but_lora_
from g2vlm.training.recipes.recipe import FromScratch, Recipe, SyntheticData, parts_of
from g2vlm.training.recipes.stages import freeze_
from g2vlm.training.run.learner import set_checkpointing_
from g2vlm.training.run.optimizers import orthogonalised

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that one process needs, and what they are for."""

    num_parameters: int
    num_trained: int
    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    """Kept from the forward to the backward pass of one micro-batch, counted on a pass without memory."""
    num_tokens: int
    """Tokens of that micro-batch."""

    @property
    def total(self) -> int:
        """Everything, without what the allocator and the kernels need on top."""
        return self.weights + self.gradients + self.optimizer + self.average + self.activations

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for people."""
        return [
            (
                "parameters",
                f"{self.num_parameters / 1e6:,.1f} M, {self.num_trained / 1e6:,.1f} M of them trained",
            ),
            ("weights", _gigabytes(self.weights)),
            ("gradients", _gigabytes(self.gradients)),
            ("optimizer (moments)", _gigabytes(self.optimizer)),
            ("moving average", _gigabytes(self.average)),
            (f"activations of {self.num_tokens:,} tokens", _gigabytes(self.activations)),
            ("together, for each process", _gigabytes(self.total)),
        ]


def plan_memory(recipe: Recipe, processes: int = 1) -> TrainingMemory:
    """Run one step of a recipe on the meta device and count.

    Args:
        recipe: any; its checkpoint need not be there (the released sizes are assumed then).
        processes: over which weights, gradients and moments are sharded.
    """
    with torch.device("meta"):
        network = G2VLM(planned_config(recipe))
    cast_(network, recipe.weight_precision)
    if recipe.lora is None:
        trained = dict(freeze_(network, recipe.trained))
    else:
        add_lora_(network, recipe.trained, recipe.lora)
        trained = dict(freeze_all_but_lora_(network))
    set_checkpointing_(network, recipe.checkpointing)
    activations, num_tokens = _measure(network, recipe, list(trained.values()))
    num_trained = sum(weight.numel() for weight in trained.values())
    num_single = sum(weight.numel() for weight in orthogonalised(trained, recipe.optimisation).values())
    every = list(network.parameters())
    return TrainingMemory(
        num_parameters=sum(weight.numel() for weight in every),
        num_trained=num_trained,
        weights=sum(weight.numel() * weight.element_size() for weight in every) // processes,
        gradients=num_trained * FLOAT32_BYTES // processes,
        optimizer=(2 * num_trained - num_single) * FLOAT32_BYTES // processes,
        average=0 if recipe.optimisation.ema_decay is None else num_trained * FLOAT32_BYTES // processes,
        activations=activations,
        num_tokens=num_tokens,
    )


def planned_config(recipe: Recipe) -> G2VLMConfig:
    """Sizes of the network that a recipe trains, without loading it."""
    if isinstance(recipe.start, FromScratch):
        return recipe.start.config
    try:
        return read_config(choose_checkpoint(recipe.start.name, may_download=False).folder)
    except G2VLMError:
        if recipe.start.expected is None:
            raise
        return recipe.start.expected


def _measure(network: G2VLM, recipe: Recipe, trained: list[nn.Parameter]) -> tuple[int, int]:
    """Bytes that one forward pass keeps for its backward pass, and tokens; also takes an optimizer step."""
    inputs, wants = _largest_batch(network.config, recipe)
    weights = {id(weight) for weight in network.parameters()}
    kept: Counter[int] = Counter()

    def pack(tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in weights:
            kept[id(base)] = max(kept[id(base)], base.numel() * base.element_size())
            alive.append(base)
        return tensor

    alive: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision is Precision.BFLOAT16)
        with autocast:
            outputs = network(inputs, wants)
        loss = torch.zeros((), device="meta")
        if outputs.geometry is not None:
            loss = loss + outputs.geometry.points_world.sum() + outputs.geometry.T_world_camera.sum()
            if outputs.geometry.points_global is not None:
                loss = loss + outputs.geometry.points_global.sum()
        if outputs.logits is not None:
            loss = loss + outputs.logits.float().logsumexp(-1).sum()
    loss.backward()
    torch.optim.AdamW(trained, foreach=False).step()
    return sum(kept.values()), inputs.token_ids.shape[0] * inputs.layout.num_tokens


def _largest_batch(config: G2VLMConfig, recipe: Recipe) -> tuple[ModelInputs, Wants]:
    """A micro-batch on the meta device with the most views of the recipe."""
    views, width, aspect = 4, config.image_width, 0.75
    for data in (part.data for part in parts_of(recipe.data)):
        if not isinstance(data, SyntheticData):
            continue
        views = max(max(phase.views) for phase in data.phases)
        width, aspect = max(data.widths), max(data.aspects)
    patch = config.geometric_encoder.patch_size
    rows, columns = max(1, round(width * aspect / patch)), width // patch
    batch = max(1, recipe.batching.tokens // (views * rows * columns))
    builder = SpanBuilder(ImageTokens(0, 1)).text([0] * 24)
    builder.geometric_views(views, rows, columns, one_block=True)
    patches = None
    encoder = config.semantic_encoder
    if recipe.stage.has_language:
        cells = encoder.image_side // (encoder.patch_size * encoder.merge_size)
        builder.semantic_views(views, cells, cells)
        side = cells * encoder.merge_size
        patches = SemanticPatches(
            torch.empty(batch, views, side * side, encoder.patch_features, device="meta"), side, side
        )
        builder.text([0] * 64)
    layout, (ids, slots) = layout_of(builder.spans), text_of(builder.spans)
    meta = Layout(layout.blocks, layout.semantic_positions.to("meta"), layout.geometric_positions.to("meta"))
    images = torch.empty(batch, views, 3, rows * patch, columns * patch, device="meta")
    answers = slots[-16:].to("meta") if recipe.stage.has_language else None
    inputs = ModelInputs(
        meta, ids.expand(batch, -1).to("meta"), slots.to("meta"), Photographs(images), patches
    )
    return inputs, Wants(recipe.stage.has_geometry, recipe.stage.has_geometry, answers)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB"
