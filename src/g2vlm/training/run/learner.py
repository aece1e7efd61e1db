"""What learns: the network, its optimizers and its moving average, on one process or sharded over many."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from g2vlm.checkpoints.saving import save_network
from g2vlm.model.network import G2VLM
from g2vlm.model.outline import outline
from g2vlm.model.precision import cast_
from g2vlm.training.guidance.guides import AttentionGuides
from g2vlm.training.lora import (
    BASE,
    adapted_layers,
    add_lora_,
    freeze_all_but_lora_,
    is_update,
    merged_lora,
    merged_weight,
    save_adapter,
)
from g2vlm.training.recipes.recipe import FromCheckpoint, Recipe, SyntheticData, parts_of
from g2vlm.training.recipes.stages import freeze_
from g2vlm.training.run.average import WeightAverage
from g2vlm.training.run.compilation import compile_layers_
from g2vlm.training.run.distributed import Processes, forget_gathered_, shard_, whole
from g2vlm.training.run.first_weights import fill_
from g2vlm.training.run.optimizers import make_optimizers, moments_of
from g2vlm.training.run.schedule import cosine_with_warmup
from g2vlm.training.run.setup import Start
from g2vlm.training.run.states import random_state, set_random_state


class Learner:
    """A network being trained.

    Args:
        recipe: what is trained, and how.
        start: the weights to begin with.
        device: where it runs.
        processes: shards the weights where there are several.
        filled: fill the network with its first weights; otherwise `content` must be overwritten by a state
            before anything else.
        compiled: compile the layers.
    """

    def __init__(
        self,
        recipe: Recipe,
        start: Start,
        device: torch.device,
        processes: Processes,
        *,
        filled: bool = True,
        compiled: bool = False,
    ) -> None:
        self.recipe, self.start, self.processes = recipe, start, processes
        self.network: G2VLM = outline(start.config).train()
        cast_(self.network, recipe.weight_precision)
        set_checkpointing_(self.network, recipe.checkpointing)
        if recipe.lora is not None:
            add_lora_(self.network, recipe.trained, recipe.lora)
            names = [name for name, _ in freeze_all_but_lora_(self.network)]
        else:
            names = [name for name, _ in freeze_(self.network, recipe.trained)]
        # Nothing is read before each process knows what it will hold.
        if processes.count > 1:
            shard_(self.network, device, recipe.precision)
        self.network.to_empty(device=device)
        if filled or recipe.lora is not None:
            fill_(self.network, recipe, start)
        if compiled:
            compile_layers_(self.network)
        self.guides = self._guides()
        every = dict(self.network.named_parameters())
        self.weights: dict[str, nn.Parameter] = {name: every[name] for name in names}
        self.optimizers = make_optimizers(self.weights, recipe.optimisation)
        decay = recipe.optimisation.ema_decay
        self.average = None if decay is None else WeightAverage(self.weights, decay)

    def _guides(self) -> AttentionGuides | None:
        recipe = self.recipe
        matching = recipe.matching if recipe.stage.has_geometry else None
        # Only the synthetic world knows what words speak of.
        knows_words = recipe.stage.has_language and any(
            isinstance(part.data, SyntheticData) for part in parts_of(recipe.data)
        )
        pointing = recipe.pointing if knows_words else None
        guided = matching is not None or pointing is not None
        return AttentionGuides(self.network, matching, pointing) if guided else None

    def learning_rate(self, step: int) -> float:
        """The rate of an optimisation step."""
        settings = self.recipe.optimisation
        factor = cosine_with_warmup(
            step, warmup=settings.warmup, total=settings.steps, floor=settings.final_fraction
        )
        return settings.learning_rate * factor

    def gradient_norm(self) -> Tensor:
        """Norm of the whole gradient, which is clipped on the way."""
        return whole(nn.utils.clip_grad_norm_(list(self.weights.values()), self.recipe.optimisation.clip))

    def apply(self, step: int) -> None:
        """Take the optimisation step and forget the gradient."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate(step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.weights, step)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it, the network has its averaged weights, where an average is kept."""
        if self.average is None:
            yield
            return
        self._exchange(self.average)
        try:
            yield
        finally:
            self._exchange(self.average)

    def _exchange(self, average: WeightAverage) -> None:
        average.swap(self.weights)
        forget_gathered_(self.network)

    def content(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as tensors in dictionaries; they are not copies.

        Low-rank runs leave out the weights of the checkpoint they start from.
        """
        every = dict(self.network.named_parameters())
        kept = self.weights if self.recipe.lora else every
        return {
            "weights": {name: weight.detach() for name, weight in kept.items()},
            "moments": moments_of(self.weights, self.optimizers),
            "average": {} if self.average is None else self.average.state_dict(),
            "random": random_state(),
        }

    def take_over(self, content: dict[str, Any]) -> None:
        """Continue from tensors of `content` that were overwritten by those of a state."""
        set_random_state(content["random"])
        forget_gathered_(self.network)

    def export(self, folder: Path, dtype: torch.dtype) -> None:
        """Write the (averaged, merged) weights as a checkpoint folder; every process must call this."""
        with self.averaged():
            if self.processes.count > 1:
                network = self._gathered()
                if self.processes.is_first:
                    save_network(network, folder, tokenizer_from=self.start.folder, dtype=dtype)
                return
            with merged_lora(self.network):
                save_network(self.network, folder, tokenizer_from=self.start.folder, dtype=dtype)

    def export_adapter(self, folder: Path) -> None:
        """Write the (averaged) low-rank updates as peft does; every process must call this."""
        assert isinstance(self.recipe.start, FromCheckpoint), (
            "updates of drawn weights mean nothing elsewhere"
        )
        with self.averaged():
            updates = {name: whole(weight.detach()) for name, weight in self.weights.items()}
            if self.processes.is_first:
                save_adapter(self.network, updates, self.recipe.start.name, folder)

    def _gathered(self) -> G2VLM:
        """A plain copy on the CPU of the first process; empty elsewhere."""
        copy, layers = outline(self.network.config, self.network.parts), adapted_layers(self.network)
        for name, weight in self.network.named_parameters():
            if is_update(name):
                continue
            module = name.rpartition(".")[0].removesuffix(f".{BASE}")
            values, leaf = whole(weight.detach()), name.rpartition(".")[2]
            if module in layers and leaf == "weight":
                values = merged_weight(layers[module], whole)
            if self.processes.is_first:
                setattr(copy.get_submodule(module), leaf, nn.Parameter(values.cpu(), requires_grad=False))
        return copy


def set_checkpointing_(network: G2VLM, on: bool) -> None:
    """Let every tower and decoder keep its activations, or recompute them in the backward pass."""
    for module in network.modules():
        if hasattr(module, "checkpointing"):
            module.checkpointing = on  # type: ignore[assignment]
