"""bfloat16 is as exact as its number format allows.

The yardstick is a float32 network whose weights are rounded to bfloat16 and in which everything that enters
or leaves a matrix product of the towers is rounded too: what any implementation in bfloat16 must lose. That
the residual streams stay in float32 is tested where they are computed; here they would cost a few per cent.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from g2vlm.checkpoints.loading import load_network
from g2vlm.inference.prompts import PromptBuilder
from g2vlm.inputs.geometric import prepare_geometric
from g2vlm.inputs.photos import load_photos
from g2vlm.inputs.semantic import SemanticPreparation, prepare_semantic
from g2vlm.inputs.text import TextTokenizer
from g2vlm.model.cache import CacheShape, KeyValueCache
from g2vlm.model.config import ViewAttention
from g2vlm.model.network import G2VLM, Wants
from g2vlm.model.precision import FLOAT32_PARTS, Precision, choose_placement

NAME = "computed_landscape"
FACTOR = 1.15
"""How much worse than the yardstick is still rounding: the yardstick does not round after the rotation."""


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().float()


def round_matrix_products(network: G2VLM) -> G2VLM:
    heads = tuple(part.value for part in FLOAT32_PARTS)
    for name, parameter in network.named_parameters():
        if not name.startswith(heads):
            parameter.data = rounded(parameter.data)
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and not name.startswith(heads):
            module.register_forward_pre_hook(lambda _module, inputs: (rounded(inputs[0]),))
            module.register_forward_hook(lambda _module, _inputs, output: rounded(output))
    return network


@dataclass(frozen=True)
class Material:
    prompts: PromptBuilder
    photos: list[Path]
    question: str
    token_ids: list[int]


def run(network: G2VLM, material: Material, precision: Precision) -> dict[str, Tensor]:
    """The recorded tensors of both prompts; the answer of the public system is fed, not our own choice."""
    photos = load_photos(material.photos).photos
    images = prepare_geometric(photos)
    prompts = material.prompts
    with torch.inference_mode():
        prompt = prompts.reconstruction(images.pixels, ViewAttention.GLOBAL)
        outputs = network(prompt.inputs, Wants(geometry=True))
        hidden = outputs.hidden.geometric[0].float().unflatten(0, (len(photos), -1))
        patches = prepare_semantic(photos, SemanticPreparation())
        beginning = prompts.chat_beginning(images.pixels, patches, ViewAttention.GLOBAL)
        ids = prompts.question_ids(material.question) + material.token_ids[:-1]
        cache = KeyValueCache(
            CacheShape.of(network.config.mixture),
            beginning.inputs.layout.num_tokens + len(ids),
            dtype=precision.dtype,
        )
        network(beginning.inputs, Wants(), cache)
        slots = torch.arange(len(ids) - len(material.token_ids), len(ids))
        text = prompts.text(ids, beginning.next_position)
        logits = network(text.inputs, Wants(logit_slots=slots), cache).logits
    return {
        "recon.geo_hidden[::37]": hidden[:, ::37],
        "recon.local_points[::9]": outputs.geometry.points_camera[:, :, ::9, ::9],
        "recon.camera_poses": outputs.geometry.T_world_camera,
        "chat.logits": logits[0].float(),
    }


def raw_points(points: Tensor) -> Tensor:
    """What the head predicts, (x/z, y/z, log z): in the points a few far ones would be the whole mean."""
    return torch.cat([points[..., :2] / points[..., 2:], points[..., 2:].log()], dim=-1)


def mean_relative_errors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    errors = {}
    for key, value in found.items():
        reference = expected[key]
        if "points" in key:
            value, reference = raw_points(value), raw_points(reference)
        errors[key] = float((value - reference).abs().mean() / reference.abs().mean())
    return errors


@pytest.fixture(scope="module")
def errors(small_checkpoint: Path, computed_images: Path, parity_data: Path) -> dict[str, dict[str, float]]:
    case = json.loads((parity_data / "cases.json").read_text())[NAME]
    expected = load_file(parity_data / f"{NAME}.safetensors")
    float32 = load_network(small_checkpoint, choose_placement("cpu", "float32"))
    bfloat16 = load_network(small_checkpoint, choose_placement("cpu", "bfloat16"))
    tokenizer = TextTokenizer.from_folder(small_checkpoint)
    material = Material(
        PromptBuilder(tokenizer, float32.config, torch.device("cpu")),
        [computed_images / name for name in case["images"]],
        case["question"],
        case["token_ids"],
    )
    yardstick = run(round_matrix_products(float32), material, Precision.FLOAT32)
    return {
        "found": mean_relative_errors(run(bfloat16, material, Precision.BFLOAT16), expected),
        "explained": mean_relative_errors(yardstick, expected),
    }


@pytest.mark.parametrize(
    "key", ["recon.geo_hidden[::37]", "recon.local_points[::9]", "recon.camera_poses", "chat.logits"]
)
def test_the_error_of_bfloat16_is_what_rounding_explains(
    errors: dict[str, dict[str, float]], key: str
) -> None:
    found, explained = errors["found"][key], errors["explained"][key]
    assert 1e-4 < explained < 0.1, f"the yardstick itself is off: {explained:.2e}"
    assert found <= FACTOR * explained, f"{found:.2e} against {explained:.2e} explained"
