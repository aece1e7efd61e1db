"""Image-text models of the `transformers` library, such as Qwen2-VL, Qwen3-VL and InternVL."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from g2vlm.errors import InputError
from g2vlm.evaluation.predictors.interface import Questions


@dataclass(frozen=True)
class TransformersModel:
    """Asks a model through its own chat template.

    Raises:
        InputError: the name or folder holds no image-text model, or its processor cannot be made (many need
            torchvision: install it beside torch from the same index).
    """

    name: str
    """Hub id or folder."""
    max_new_tokens: int = 160
    device: str = "cpu"
    dtype: str = "auto"
    _parts: tuple[Any, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Load the weights and the processor."""
        object.__setattr__(self, "_parts", load_parts(self.name, self.device, self.dtype))

    @torch.inference_mode()
    def answer(self, asked: Questions) -> Sequence[str]:
        """Greedy answers, one question after the other, photos in front of the text."""
        model, processor = self._parts
        answers = []
        for question in asked.texts:
            content: list[dict[str, Any]] = [{"type": "image", "image": photo} for photo in asked.photos]
            content.append({"type": "text", "text": question})
            inputs = processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            ).to(model.device)
            made = model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
            new = made[0, inputs["input_ids"].shape[1] :]
            answers.append(str(processor.decode(new, skip_special_tokens=True)))
        return answers


def load_parts(name: str, device: str, dtype: str) -> tuple[Any, Any]:
    """Model and processor.

    Raises:
        InputError: they cannot be loaded.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        model: Any = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype)
        processor = AutoProcessor.from_pretrained(name)
    except (OSError, ValueError, ImportError) as error:
        told = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise InputError(f"Expected an image-text model of transformers at {name!r}: {told}") from error
    return model.to(device).eval(), processor
